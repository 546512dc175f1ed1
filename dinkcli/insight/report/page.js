"use strict";
(async () => {
  const $ = (id) => document.getElementById(id);
  const drawings = JSON.parse($("data").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const most = 200;

  await Promise.all(
    Object.values(drawings).filter(Boolean).map((item) => Bokeh.embed.embed_item(item)),
  );
  const models = Bokeh.documents.flatMap((each) =>
    each.roots().flatMap((root) => [...root.references()]),
  );
  const source = models.find((model) => model.name === "rows");
  const [cluster, row, id, text] = ["cluster", "row", "id", "text"].map((name) =>
    source.get_column(name),
  );
  const cards = [...document.querySelectorAll(".card")];

  // Bokeh draws on a canvas, which no style sheet reaches.
  const paint = () => {
    const style = getComputedStyle(document.documentElement);
    const [ink, card] = ["--text", "--card"].map((name) => style.getPropertyValue(name).trim());
    const colours = {
      axis_label_text_color: ink, major_label_text_color: ink, label_text_color: ink,
      axis_line_color: ink, major_tick_line_color: ink, minor_tick_line_color: ink,
      grid_line_color: ink, text_color: ink,
    };
    for (const model of models) {
      const known = Object.keys(colours).filter((name) => name in model.properties);
      if (known.length && model.type !== "Title") {
        model.setv(Object.fromEntries(known.map((name) => [name, colours[name]])));
      }
      if (model.type === "LabelSet") {
        model.setv({ background_fill_color: card });
      }
    }
  };
  const theme = document.documentElement.dataset;
  $("theme").addEventListener("click", () => {
    const now = theme.theme ?? (dark.matches ? "dark" : "light");
    theme.theme = now === "dark" ? "light" : "dark";
    paint();
  });
  dark.addEventListener("change", paint);
  paint();

  const list = (rows) => {
    const items = rows.slice(0, most).map((i) => {
      const item = document.createElement("li");
      item.textContent = id ? id[i] : text ? text[i] : `row ${row[i]}`;
      const more = document.createElement("small");
      more.textContent = `cluster ${cluster[i]}${id && text ? ": " + text[i] : ""}`;
      item.append(more);
      return item;
    });
    $("found").replaceChildren(...items);
  };
  const status = (words) => { $("status").textContent = words; };
  let painting = false; // whether the selection below comes from here and not from a click
  const select = (rows) => {
    painting = true;
    source.selected.indices = rows;
    painting = false;
  };
  const mark = (chosen) => {
    for (const card of cards) {
      const on = Number(card.dataset.cluster) === chosen;
      card.classList.toggle("chosen", on);
      card.querySelector("button").setAttribute("aria-pressed", String(on));
    }
  };
  const everything = () => {
    select([]);
    mark(-1);
    list([]);
    status("");
    $("search").value = "";
    for (const card of cards) card.classList.remove("hidden");
  };
  const choose = (number) => {
    everything();
    const rows = [];
    for (let i = 0; i < cluster.length; i++) if (cluster[i] === number) rows.push(i);
    select(rows);
    mark(number);
    list(rows);
    status(`Cluster ${number}: ${rows.length.toLocaleString("en")} rows on the map`);
  };
  const search = (words) => {
    const wanted = words.trim().toLowerCase();
    if (!wanted) return everything();
    const rows = [];
    const has = (value) => value != null && value.toLowerCase().includes(wanted);
    for (let i = 0; i < cluster.length; i++) {
      if (has(id?.[i]) || has(text?.[i]) || (!id && String(row[i]) === wanted)) rows.push(i);
    }
    const inside = new Set(rows.map((i) => cluster[i]));
    for (const card of cards) {
      const match = has(card.textContent) || inside.has(Number(card.dataset.cluster));
      card.classList.toggle("hidden", !match);
    }
    mark(-1);
    select(rows.length ? rows : [-1]);
    list(rows);
    status(`${rows.length.toLocaleString("en")} rows found in ${inside.size} clusters`);
  };

  source.selected.properties.indices.change.connect(() => {
    if (painting) return;
    const [first] = source.selected.indices;
    if (first === undefined) everything();
    else choose(cluster[first]);
  });
  for (const card of cards) {
    card.querySelector("button").addEventListener("click", (event) => {
      const pressed = event.currentTarget.getAttribute("aria-pressed") === "true";
      if (pressed) everything();
      else choose(Number(card.dataset.cluster));
    });
  }
  let waiting;
  $("search").addEventListener("input", (event) => {
    clearTimeout(waiting);
    waiting = setTimeout(() => search(event.target.value), 150);
  });
  $("clear").addEventListener("click", everything);
  addEventListener("keydown", (event) => { if (event.key === "Escape") everything(); });
  $("order").addEventListener("change", (event) => {
    const by = event.target.value;
    const sign = by === "size" ? -1 : 1;
    cards.sort((a, b) => sign * (Number(a.dataset[by]) - Number(b.dataset[by])));
    document.querySelector(".cards").append(...cards);
  });
  performance.mark("ready");
  document.body.dataset.ready = "true";
})();
