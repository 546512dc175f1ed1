"""The paper: both losses of Dink-Net in closed form, and the cluster head made of them.

Read ``objective``, then ``head``.
"""
