"""``dink report``: a page about a model and its rows, in one file that needs no network."""

from dinkcli.insight.report.gather import Material, gather
from dinkcli.insight.report.page import page, picture

__all__ = ["Material", "gather", "page", "picture"]
