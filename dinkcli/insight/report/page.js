"use strict";
(async () => {
  const $ = (id) => document.getElementById(id);
  const { drawings, labels } = JSON.parse($("data").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const most = 200;

  const managers = await Promise.all(
    Object.values(drawings).filter(Boolean).map((item) => Bokeh.embed.embed_item(item)),
  );
  const models = Bokeh.documents.flatMap((each) =>
    each.roots().flatMap((root) => [...root.references()]),
  );
  const source = models.find((model) => model.name === "rows");
  const [cluster, row, id, text, distance, x, y] = [
    "cluster", "row", "id", "text", "distance", "x", "y",
  ].map((name) => source.get_column(name));
  const plot = models.find((model) => model.name === "map");
  const view = managers.flatMap((each) => [...each.roots]).find((each) => each.model === plot);
  const cards = [...document.querySelectorAll(".card")];

  // Bokeh draws on a canvas, which no style sheet reaches.
  const paint = () => {
    const style = getComputedStyle(document.documentElement);
    const ink = style.getPropertyValue("--text").trim();
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

  // Names on the map, the largest cluster first; what would cover another waits for more room.
  const spans = labels.map(([number, , , name]) => {
    const span = document.createElement("span");
    span.textContent = name;
    span.dataset.cluster = number;
    $("labels").append(span);
    return span;
  });
  let sizes = [];
  const place = () => {
    const { frame } = view;
    const box = frame.bbox;
    if (!sizes.length) sizes = spans.map((span) => [span.offsetWidth, span.offsetHeight]);
    const taken = [];
    const faint = (i) => spans[i].classList.contains("faint");
    const order = labels.map((_, i) => i).sort((a, b) => faint(a) - faint(b) || a - b);
    for (const i of order) {
      const [, across, up] = labels[i];
      const [w, h] = sizes[i];
      const left = frame.x_scale.compute(across), top = frame.y_scale.compute(up) - 10;
      const mine = [left - w / 2 - 2, top - h / 2 - 1, left + w / 2 + 2, top + h / 2 + 1];
      const fits = mine[0] >= box.left && mine[2] <= box.right && mine[1] >= box.top &&
        mine[3] <= box.bottom && !taken.some((other) =>
          mine[0] < other[2] && other[0] < mine[2] && mine[1] < other[3] && other[1] < mine[3]);
      if (fits) taken.push(mine);
      const visibility = fits ? "visible" : "hidden";
      Object.assign(spans[i].style, { left: `${left}px`, top: `${top}px`, visibility });
    }
  };
  let due = false;
  const placeSoon = () => {
    if (due) return;
    due = true;
    setTimeout(() => { due = false; place(); }, 30);
  };
  for (const range of [plot.x_range, plot.y_range]) range.change.connect(placeSoon);
  new ResizeObserver(() => { sizes = []; setTimeout(placeSoon, 60); }).observe($("map"));
  const whole = [plot.x_range, plot.y_range].map((range) => [range.start, range.end]);
  const zoom = (ranges) => [plot.x_range, plot.y_range].forEach((range, i) => {
    range.setv({ start: ranges[i][0], end: ranges[i][1] });
  });
  // The middle eight tenths of the rows, with the surroundings.
  const zoomTo = (rows) => {
    if (!rows.length) return;
    const extents = [x, y].map((values) => {
      const sorted = Float32Array.from(rows, (i) => values[i]).sort();
      const at = (share) => sorted[Math.round(share * (sorted.length - 1))];
      return [at(0.1), at(0.9)];
    });
    const full = whole.map(([start, end]) => end - start);
    const shares = extents.map(([a, b], i) => 1.8 * (b - a) / full[i]);
    const share = Math.min(1, Math.max(0.22, ...shares));
    zoom(extents.map(([a, b], i) => {
      const middle = (a + b) / 2, half = share * full[i] / 2;
      return [middle - half, middle + half];
    }));
  };

  let picked = []; // the rows of the selection, nearest to their centres first
  const list = (rows) => {
    picked = rows.slice().sort((a, b) => distance[a] - distance[b] || row[a] - row[b]);
    const items = picked.slice(0, most).map((i) => {
      const item = document.createElement("li");
      item.textContent = id ? id[i] : text ? text[i] : `row ${row[i]}`;
      const more = document.createElement("small");
      more.textContent = `cluster ${cluster[i]}, distance ${distance[i].toPrecision(3)}` +
        (id && text ? `: ${text[i]}` : "");
      item.append(more);
      return item;
    });
    $("found").replaceChildren(...items);
    const [some, all] = [items.length, picked.length].map((n) => n.toLocaleString("en"));
    $("shown").textContent = !picked.length ? "" : some === all ? `all ${all}, nearest first`
      : `nearest ${some} of ${all}`;
    $("copy").disabled = $("save").disabled = !picked.length;
  };
  const csv = () => {
    const columns = { row, id, text, cluster, distance };
    const names = Object.keys(columns).filter((name) => columns[name]);
    const cell = (value) =>
      typeof value === "string" ? `"${value.replaceAll('"', '""')}"` : String(value);
    const lines = picked.map((i) => names.map((name) => cell(columns[name][i])).join(","));
    return [names.join(","), ...lines, ""].join("\n");
  };
  $("copy").addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(csv());
    } catch { // not where the browser keeps the clipboard from files
      const area = document.createElement("textarea");
      area.value = csv();
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    status(`${picked.length.toLocaleString("en")} rows copied`);
  });
  $("save").addEventListener("click", () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
    link.download = "rows.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });

  const status = (words) => { $("status").textContent = words; };
  let painting = false; // whether the selection below comes from here and not from a click
  const select = (rows) => {
    painting = true;
    source.selected.indices = rows;
    painting = false;
  };
  const shine = (clusters) => {
    for (const span of spans) {
      const inside = clusters === null || clusters.has(Number(span.dataset.cluster));
      span.classList.toggle("faint", !inside);
    }
    placeSoon();
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
    shine(null);
    mark(-1);
    list([]);
    status("");
    $("search").value = "";
    for (const card of cards) card.classList.remove("hidden");
  };
  const rowsOf = (number) => {
    const rows = [];
    for (let i = 0; i < cluster.length; i++) if (cluster[i] === number) rows.push(i);
    return rows;
  };
  const choose = (number, bring = false) => {
    everything();
    const rows = rowsOf(number);
    select(rows);
    shine(new Set([number]));
    mark(number);
    list(rows);
    status(`Cluster ${number}: ${rows.length.toLocaleString("en")} rows on the map`);
    if (bring) {
      zoomTo(rows);
      $("map-title").scrollIntoView({ block: "start" });
    }
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
    shine(inside);
    list(rows);
    status(`${rows.length.toLocaleString("en")} rows found in ${inside.size} clusters`);
  };
  const lasso = (rows) => {
    mark(-1);
    list(rows);
    shine(new Set(rows.map((i) => cluster[i])));
    status(`${rows.length.toLocaleString("en")} rows picked`);
  };

  // The mouse on a cluster dims the others, unless something is chosen.
  let hovered = null;
  const hover = (number) => {
    if (number === hovered) return;
    if (hovered === null && source.selected.indices.length) return;
    hovered = number;
    select(number === null ? [] : rowsOf(number));
    shine(number === null ? null : new Set([number]));
  };
  source.inspect.connect(() => {
    const [first] = source.inspected.indices;
    // Bokeh looks again after each drawing; what only stays under the mouse is no news.
    if (!dragging && performance.now() - moved < 400) hover(cluster[first] ?? null);
  });
  let dragging = false, down = null, moved = -Infinity;
  $("map").addEventListener("pointerdown", (event) => {
    down = [event.clientX, event.clientY];
  }, true);
  $("map").addEventListener("pointermove", (event) => {
    moved = performance.now();
    dragging = down && Math.hypot(event.clientX - down[0], event.clientY - down[1]) > 6;
    if (dragging) hover(null);
  }, true);
  addEventListener("pointerup", () => setTimeout(() => { dragging = false; down = null; }), true);
  source.selected.properties.indices.change.connect(() => {
    if (painting) return;
    const [first] = source.selected.indices;
    const under = hovered;
    hovered = null;
    // A tap on rows that hovering selected takes them out of Bokeh's selection.
    if (first === undefined && under !== null) choose(under);
    else if (first === undefined) everything();
    else if (dragging) lasso([...source.selected.indices]);
    else choose(cluster[first]);
  });
  for (const card of cards) {
    const number = Number(card.dataset.cluster);
    const button = card.querySelector("button");
    button.addEventListener("click", () => {
      hovered = null;
      if (button.getAttribute("aria-pressed") === "true") {
        everything();
        zoom(whole);
      } else choose(number, true);
    });
    button.addEventListener("mouseenter", () => hover(number));
    button.addEventListener("mouseleave", () => hover(null));
  }
  for (const leaf of document.querySelectorAll(".leaf")) {
    leaf.addEventListener("click", () => choose(Number(leaf.dataset.cluster), true));
  }
  const phone = matchMedia("(max-width: 760px)");
  const fold = () => {
    for (const card of cards) card.querySelector("details").open = !phone.matches;
  };
  phone.addEventListener("change", fold);
  fold();
  let waiting;
  $("search").addEventListener("input", (event) => {
    clearTimeout(waiting);
    waiting = setTimeout(() => search(event.target.value), 150);
  });
  $("clear").addEventListener("click", () => { everything(); zoom(whole); });
  addEventListener("keydown", (event) => { if (event.key === "Escape") everything(); });
  $("order").addEventListener("change", (event) => {
    const by = event.target.value;
    const sign = by === "size" ? -1 : 1;
    cards.sort((a, b) => sign * (Number(a.dataset[by]) - Number(b.dataset[by])));
    document.querySelector(".cards").append(...cards);
  });
  place();
  performance.mark("ready");
  document.body.dataset.ready = "true";
})();
