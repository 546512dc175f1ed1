"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent);
  const decode = (text, Kind) => {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    return new Kind(bytes.buffer);
  };
  const x = decode(data.x, Float32Array), y = decode(data.y, Float32Array);
  const cluster = decode(data.cluster, Int32Array);
  const distance = decode(data.distance, Float32Array);
  const row = decode(data.row, data.wholeRows ? Int32Array : Float64Array);
  const { id, text, names, groups, sizes } = data;
  const n = x.length, most = 200; // rows, and those of a list
  const count = (number) => number.toLocaleString("en");
  const rows = (number) => `${count(number)} row${number === 1 ? "" : "s"}`;
  const element = (tag, attributes = {}, ...children) => {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  };
  const bySize = sizes.map((_, j) => j).sort((a, b) => sizes[b] - sizes[a]);
  const grouped = data.labels.some((label) => label.is_group);
  const drawing = (tag, attributes, ...children) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  };

  // What the eye sees: colours of the theme, of the rows, and the frame of the map.
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const theme = document.documentElement.dataset;
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
  const mixed = (hex, other, share) =>
    `rgb(${rgb(hex).map((v, i) => Math.round(v * share + rgb(other)[i] * (1 - share))).join()})`;
  let column = null; // that colours the rows; null: their clusters do
  const code = (i) => (column ? column.codes[i] : cluster[i]);
  const colours = () => (column ? column.colours : data.colours);
  let bright = null; // whether each row stands out; null: all do
  let lit = null; // clusters whose names stand out; null: all do

  const range = (values) => {
    let low = Infinity, high = -Infinity;
    for (const value of values) { low = Math.min(low, value); high = Math.max(high, value); }
    return [low, high];
  };
  const bounds = [range(x), range(y)];
  const centre = () => bounds.map(([low, high]) => (low + high) / 2);
  const view = { at: centre(), zoom: 1 };
  const canvas = $("map"), stage = $("stage"), overlay = $("labels");

  // A frame turns places into pixels; that of the screen and those of posters differ in size.
  const frame = (width, height, top = 0, side = 0) => {
    const pad = Math.min(width, height - top) < 500 ? 14 : 40;
    const fit = bounds.map(([low, high], i) =>
      (i ? height - top - 2 * pad : width - side - 2 * pad) / (high - low || 1));
    const least = Math.min(...fit) * data.stretch;
    const [fx, fy] = fit.map((each) => Math.min(each, least) * view.zoom);
    const [mx, my] = [(width + side) / 2, (height + top) / 2];
    return {
      width, height, top, fx, fy, letters: 1, taken: [],
      px: (value) => mx + (value - view.at[0]) * fx,
      py: (value) => my - (value - view.at[1]) * fy,
      back: (left, down) => [view.at[0] + (left - mx) / fx, view.at[1] - (down - my) / fy],
    };
  };
  let screen = frame(800, 600);
  const radius = () => data.radius * Math.min(2.2, view.zoom ** 0.35) *
    Math.min(1, Math.max(0.75, screen.width / 900));

  const paint = () => {
    const scale = devicePixelRatio || 1, { width, height } = screen, size = radius();
    canvas.width = width * scale;
    canvas.height = height * scale;
    const brush = canvas.getContext("2d");
    const shades = colours();
    brush.scale(scale, scale);
    for (const shining of bright ? [0, 1] : [1]) {
      brush.globalAlpha = shining ? (bright ? 0.95 : 0.72) : 0.18;
      const paths = new Map();
      for (let i = 0; i < n; i++) {
        if (bright && bright[i] !== shining) continue;
        const left = screen.px(x[i]), down = screen.py(y[i]);
        if (left < -9 || down < -9 || left > width + 9 || down > height + 9) continue;
        const number = code(i);
        if (!paths.has(number)) paths.set(number, new Path2D());
        const path = paths.get(number);
        path.moveTo(left + size, down);
        path.arc(left, down, size, 0, 2 * Math.PI);
      }
      for (const [number, path] of paths) {
        brush.fillStyle = shades[number];
        brush.fill(path);
      }
    }
  };

  // Names beside their clusters: the largest first, each where it covers the fewest points and no
  // other name, with a thin line to its cluster.
  const ruler = element("canvas").getContext("2d");
  const wide = (line, size, weight) => {
    ruler.font = `${weight} ${size}px system-ui, -apple-system, "Segoe UI", Arial, sans-serif`;
    return ruler.measureText(line).width;
  };
  const cell = 8;
  const covered = (to) => {
    const across = Math.ceil(to.width / cell) + 2, down = Math.ceil(to.height / cell) + 2;
    const sums = new Int32Array(across * down);
    for (let i = 0; i < n; i++) {
      const a = Math.floor(to.px(x[i]) / cell) + 1, b = Math.floor(to.py(y[i]) / cell) + 1;
      if (a > 0 && b > 0 && a < across && b < down) sums[b * across + a] = 1;
    }
    for (let b = 1; b < down; b++) {
      for (let a = 1, line = 0; a < across; a++) {
        line += sums[b * across + a];
        sums[b * across + a] = line + sums[(b - 1) * across + a];
      }
    }
    return ([left, top, right, bottom]) => {
      const [a, b, c, d] = [left, top, right, bottom].map((each) => Math.floor(each / cell));
      const all = sums[(d + 1) * across + c + 1] - sums[b * across + c + 1] -
        sums[(d + 1) * across + a] + sums[b * across + a];
      return all / ((d + 1 - b) * (c + 1 - a));
    };
  };
  const meet = (one, other) =>
    one[0] < other[2] && other[0] < one[2] && one[1] < other[3] && other[1] < one[3];
  const fitted = (labels, to, share, boxes, far, limit = Infinity) => {
    const small = to.width < 600, made = [];
    let seen = 0;
    for (const label of labels) {
      const [ax, ay] = [to.px(label.at[0]), to.py(label.at[1])];
      if (ax < 0 || ay < to.top || ax > to.width || ay > to.height) continue;
      if (++seen > 250) break; // there is no room for more
      const group = label.is_group, weight = group ? 700 : 600;
      const size = label.size * (small ? 0.82 : to.letters) * (far && !group ? 0.88 : 1);
      const w = Math.max(...label.lines.map((line) => wide(line, size, weight))) + 6;
      const h = 1.15 * size * label.lines.length + 2;
      let best = null, least = Infinity;
      for (const reach of group ? [0, 10, 30, 60, 100] : [5, 16, 32, 54, 82]) {
        for (let turn = 0; turn < 16; turn++) {
          const angle = (turn * Math.PI) / 8;
          const cx = ax + Math.cos(angle) * (reach + (reach ? w / 2 : 0));
          const cy = ay + Math.sin(angle) * (reach + (reach ? h / 2 : 0));
          const box = [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2];
          if (box[0] < 3 || box[1] < to.top + 3 || box[2] > to.width - 3 ||
            box[3] > to.height - 3) continue;
          const cost = 60 * share(box) + 0.4 * reach;
          if (cost < least && !boxes.some((other) => meet(box, other))) {
            least = cost;
            best = box;
          }
        }
      }
      if (best && (group || least < limit)) {
        boxes.push(best);
        made.push({ ...label, box: best, size, weight, from: [ax, ay] });
      }
    }
    return made;
  };
  // From afar groups have names, and clusters where there is room; from near clusters. What stands
  // out has a name in any case, and the others keep their places.
  const placed = (to) => {
    const far = view.zoom < 1.6 && grouped, share = covered(to);
    const all = data.labels.filter((label) => (label.is_group ? far : !far || to.width >= 600));
    const rest = fitted(all, to, share, [...to.taken], far, far ? 16 : Infinity);
    if (!lit) return rest;
    const shines = (label) => !label.is_group && lit.has(label.number);
    const kept = rest.filter(shines), boxes = [...to.taken, ...kept.map(({ box }) => box)];
    const known = new Set(kept.map(({ number }) => number));
    kept.push(...fitted(data.labels.filter((label) => shines(label) && !known.has(label.number)),
      to, share, boxes, far));
    return [...rest.filter((label) => !shines(label) && !boxes.some((box) => meet(box, label.box))),
      ...kept];
  };
  const written = (to, ink, paper) => placed(to).map((label) => {
    const [left, top, right, bottom] = label.box, [ax, ay] = label.from;
    const colour = column ? ink : mixed(label.colour, ink, 0.68);
    const faint = lit && (label.is_group || !lit.has(label.number));
    const near = [Math.min(right, Math.max(left, ax)), Math.min(bottom, Math.max(top, ay))];
    const part = drawing("g", {
      [label.is_group ? "data-group" : "data-cluster"]: label.number, opacity: faint ? 0.2 : 1,
    });
    if (Math.hypot(near[0] - ax, near[1] - ay) > 12) {
      part.append(drawing("path", {
        d: `M${ax} ${ay}L${near.join(" ")}`, stroke: colour, "stroke-width": 1, opacity: 0.65,
      }));
    }
    part.append(drawing("text", {
      y: top + label.size, "font-size": label.size, "font-weight": label.weight, fill: colour,
      "text-anchor": "middle", stroke: paper, "stroke-width": 3.5, "stroke-linejoin": "round",
      "paint-order": "stroke",
    }, ...label.lines.map((line, i) =>
      drawing("tspan", { x: (left + right) / 2, dy: i ? 1.15 * label.size : 0 }, line))));
    return part;
  });

  let due = false, namesDue = false;
  const draw = (namesToo = true) => {
    namesDue ||= namesToo;
    if (!due) requestAnimationFrame(drawNow);
    due = true;
  };
  const drawNow = () => {
    screen = frame(stage.clientWidth, stage.clientHeight);
    paint();
    if (namesDue) {
      const home = stage.getBoundingClientRect();
      screen.taken = [$("legend"), stage.querySelector(".zoom")].map((each) => {
        const { left, top, right, bottom } = each.getBoundingClientRect();
        return [left - home.left, top - home.top, right - home.left, bottom - home.top];
      });
      overlay.style.transform = "";
      overlay.replaceChildren(...written(screen, css("--text"), css("--card")));
    }
    due = namesDue = false;
  };
  new ResizeObserver(() => draw()).observe(stage);
  $("theme").addEventListener("click", () => {
    const now = theme.theme ?? (dark.matches ? "dark" : "light");
    theme.theme = now === "dark" ? "light" : "dark";
    draw();
  });
  dark.addEventListener("change", () => draw());

  const zoomAt = (left, top, factor) => {
    const before = screen.back(left, top);
    view.zoom = Math.min(400, Math.max(0.8, view.zoom * factor));
    screen = frame(screen.width, screen.height);
    const after = screen.back(left, top);
    view.at = view.at.map((value, i) => value + before[i] - after[i]);
    draw();
  };
  const whole = () => { view.at = centre(); view.zoom = 1; draw(); };
  // The middle eight tenths of the rows, with the surroundings.
  const zoomTo = (chosen) => {
    if (!chosen.length) return;
    const extents = [x, y].map((values) => {
      const sorted = Float32Array.from(chosen, (i) => values[i]).sort();
      return [0.1, 0.9].map((share) => sorted[Math.round(share * (sorted.length - 1))]);
    });
    const shares = extents.map(([a, b], i) => (1.8 * (b - a)) / (bounds[i][1] - bounds[i][0] || 1));
    view.at = extents.map(([a, b]) => (a + b) / 2);
    view.zoom = 1 / Math.min(1, Math.max(0.3, ...shares));
    draw();
  };

  // The clusters as cards, as a table, and as a tree.
  const dotted = (number) =>
    element("span", { class: "dot", style: `--colour:${data.colours[number]}` });
  const shareOf = (number) => `${((100 * sizes[number]) / data.rows).toFixed(1)}%`;
  const largest = Math.max(1, ...sizes);
  const card = (number) => {
    const name = names[number];
    const button = element("button", { type: "button", "aria-pressed": false }, dotted(number),
      element("span", {}, name));
    if (name !== `cluster ${number}`) button.append(element("span", { class: "number" }, number));
    const examples = data.examples[number].map(([first, ...others]) =>
      element("li", {}, element("b", {}, first), ...others.map((each) =>
        element("span", {}, ` ${each}`))));
    const inside = element("details", { open: "" }, element("summary", {}, "what is inside"),
      element("ol", { class: "rows", "aria-label": "Rows nearest to the centre" }, ...examples));
    const fresh = (data.terms?.[number] ?? []).filter((term) => !name.includes(term));
    if (fresh.length) {
      inside.append(element("ul", { class: "terms", "aria-label": "More words" },
        ...fresh.map((term) => element("li", {}, term))));
    }
    return element("article", {
      class: "card", "data-cluster": number, "data-size": sizes[number],
      "data-spread": data.spreads[number], style: `--colour:${data.colours[number]}`,
    }, element("h3", {}, button),
    element("div", { class: "meter", "aria-hidden": true },
      element("i", { style: `width:${(100 * sizes[number]) / largest}%` })),
    element("p", { class: "facts" }, `${rows(sizes[number])}, ${shareOf(number)}`), inside);
  };
  const cards = bySize.map(card);
  $("cards").append(...cards);
  const line = (first, others, kind = "td") => element("tr", {}, element("th", { scope: "row" },
    ...[first].flat()), ...others.map((each) => element(kind, {}, each)));
  const link = (number) => element("a", { href: `#cluster=${number}` }, names[number]);
  $("figures").append(line("cluster", ["rows", "spread", "silhouette"], "th"),
    ...bySize.map((j) => line([`${j} `, link(j)], [count(sizes[j]),
      data.spreads[j].toPrecision(3), data.silhouettes[j].toFixed(2)])));
  const figure = (value, digits = 4) =>
    value == null ? "-" : String(Number(value.toPrecision(digits)));
  const { measures, training } = data;
  const facts = (pairs) => pairs.filter(([, value]) => value != null)
    .map(([name, value]) => line(name, [String(value)]));
  $("metrics").append(...facts([
    ["inertia", `${figure(measures.inertia, 6)} (${figure(measures.inertia / data.rows)} per row)`],
    ["simplified silhouette (0 to 1, higher is better)", figure(measures.simplified_silhouette)],
    ["Davies-Bouldin (lower is better)", figure(measures.davies_bouldin)],
    ["Calinski-Harabasz (higher is better)", figure(measures.calinski_harabasz)],
    ["imbalance (1 is equal sizes)", figure(measures.imbalance)],
    ["rows whose second centre is within 5 % of the first",
      measures.ambiguous == null ? "-" : `${(100 * measures.ambiguous).toFixed(2)}%`],
    ["smallest and largest cluster", `${count(Math.min(...sizes))} and ${rows(largest)}`],
  ]));
  const trained = training.input ?? {};
  $("making").append(...facts([
    ["rows of", data.file], ["column", data.column], ["features", count(data.features)],
    ["trained on", `${rows(trained.rows ?? 0)} of ${(trained.files ?? []).join(", ")}`],
    ...Object.entries(training.options ?? {}).map(([name, value]) =>
      [name.replaceAll("_", " "), value]),
    ...Object.entries(training.versions ?? {}).map(([name, value]) => [`${name} version`, value]),
  ]));
  const which =
    n < data.rows ? `${count(n)} of ${rows(data.rows)}, taken evenly` : `All ${rows(n)}`;
  $("note").textContent = data.explained === null
    ? `${which}${data.projection === "umap" ? ", by UMAP" : ""}: nearby points are ` +
      "similar, large distances say little."
    : `${which}, on the two main axes, which show ${Math.round(100 * data.explained)}% of the ` +
      "variance.";

  // Groups of the tree: those whose own merge rose by less than half of the one above them.
  const { merges, present } = data, leaves = present.length;
  const parts = (node) => {
    const least = merges[node - leaves][2] / 2, found = [];
    const todo = merges[node - leaves].slice(0, 2).reverse();
    while (todo.length) {
      const inner = todo.pop();
      if (inner < leaves || merges[inner - leaves][2] <= least) found.push(inner);
      else todo.push(...merges[inner - leaves].slice(0, 2).reverse());
    }
    return found;
  };
  const tree = () => {
    const isGroup = (clusters) => clusters.every((j) => groups[j] === groups[clusters[0]]) &&
      clusters.length === groups.filter((each) => each === groups[clusters[0]]).length;
    const inside = present.map((j) => [j]);
    for (const [a, b] of merges) inside.push([...inside[a], ...inside[b]]);
    const todo = leaves > 2 && leaves <= 1000 ? [[2 * leaves - 2, $("tree")]] : [];
    if (!todo.length) $("tree").append("A tree needs three to a thousand clusters.");
    while (todo.length) { // not by recursion: it may be deep
      const [node, parent] = todo.pop();
      for (const part of parts(node)) {
        if (part < leaves) {
          const j = present[part];
          parent.append(element("li", {}, element("button", {
            type: "button", class: "leaf", "data-cluster": j,
          }, element("span", {}, names[j]), " ", element("small", {}, rows(sizes[j])))));
          continue;
        }
        const own = inside[part].slice().sort((a, b) => sizes[b] - sizes[a]);
        const total = own.reduce((sum, j) => sum + sizes[j], 0);
        const some = own.slice(0, 3).map((j) => names[j].split(", ")[0]).join("; ");
        const called = isGroup(own) ? data.groupNames[groups[own[0]]]
          : some + (own.length > 3 ? "; …" : "");
        const below = element("ul");
        parent.append(element("li", {}, element("details", {}, element("summary", {},
          element("span", {}, called), " ",
          element("small", {}, `${own.length} clusters, ${rows(total)}`)), below)));
        todo.push([part, below]);
      }
    }
  };
  tree();

  // Each phase of the training has a scale of its own: where one ends the inertia is counted anew,
  // and a jump there is no loss. While it looks for clusters it goes by temperature, and knows the
  // inertia only of samples.
  const curve = () => {
    const phases = [];
    for (const [phase, inertia, temperature] of data.curve) {
      if (phases.at(-1)?.phase !== phase) phases.push({ phase, inertia: [], temperature: [] });
      phases.at(-1).inertia.push(Number(inertia));
      phases.at(-1).temperature.push(Number(temperature));
    }
    if (!phases.length) $("curve").append("The model has no history.");
    for (const { phase, inertia, temperature } of phases) {
      const cools = temperature.at(-1) > 0 && temperature.at(-1) < temperature[0];
      const values = cools ? temperature.map(Math.log) : inertia;
      const [low, high] = range(values), length = values.length;
      const dots = values.map((value, i) => [
        length > 1 ? 6 + (268 * i) / (length - 1) : 140,
        84 - (72 * (value - low)) / (high - low || 1),
      ]);
      const [from, to] = (cools ? temperature : inertia).filter((_, i) => !i || i === length - 1)
        .map((value) => Number(value.toPrecision(cools ? 2 : 6)));
      const ends = to === undefined ? from : `${from} → ${to}`;
      const words = `${cools ? "temperature" : "inertia"} ${ends}`;
      $("curve").append(element("figure", {}, element("figcaption", {}, element("b", {}, phase),
        element("br"), words), drawing("svg", {
        viewBox: "0 0 280 90", role: "img", "aria-label": `${phase}: ${words}`,
      }, drawing("polyline", { points: dots.join(" ") }),
      ...dots.map(([cx, cy]) => drawing("circle", { cx, cy, r: 2.5 })))));
    }
  };
  curve();

  // Rows in a list: under the names of their clusters, nearest to the centres first.
  let picked = [];
  const status = (words) => { $("status").textContent = words; };
  const heading = (number, words) => {
    const button = element("button", { type: "button" }, dotted(number),
      element("span", {}, names[number]), element("small", {}, words));
    button.addEventListener("click", () => choose(number, true));
    button.addEventListener("mouseenter", () => hover(number));
    button.addEventListener("mouseleave", () => hover(null));
    return element("li", { class: "head" }, button);
  };
  const rowItem = (i) => {
    const item = element("li", { title: `row ${row[i]}, distance ${distance[i].toPrecision(3)}` });
    item.append(id ? id[i] : text ? text[i] : `row ${row[i]}`);
    if (id && text) item.append(element("small", {}, text[i]));
    return item;
  };
  const list = (chosen, named = []) => {
    picked = chosen.slice().sort((a, b) => distance[a] - distance[b] || row[a] - row[b]);
    const inside = new Map(named.map((number) => [number, []]));
    for (const i of picked.slice(0, most)) {
      if (!inside.has(cluster[i])) inside.set(cluster[i], []);
      inside.get(cluster[i]).push(i);
    }
    const items = [...inside].flatMap(([number, some]) =>
      [heading(number, rows(sizes[number])), ...some.map(rowItem)]);
    $("found").replaceChildren(...items);
    const [some, all] = [Math.min(most, picked.length), picked.length].map(count);
    $("shown").textContent =
      some === all ? `all ${all}, nearest first` : `nearest ${some} of ${all}`;
    $("copy").disabled = $("save").disabled = !picked.length;
    document.body.dataset.picked = "";
  };
  // With nothing chosen the list is that of all clusters, in their groups.
  const contents = () => {
    const items = grouped ? [] : bySize.map((j) => heading(j, count(sizes[j])));
    if (grouped) {
      for (const number of new Set(bySize.map((j) => groups[j]).filter((each) => each >= 0))) {
        const inside = bySize.filter((j) => groups[j] === number);
        const name = element("button", { type: "button" }, data.groupNames[number]);
        name.addEventListener("click", () => chooseGroup(number));
        items.push(element("li", { class: "group" }, name));
        items.push(...inside.map((j) => heading(j, count(sizes[j]))));
      }
    }
    picked = [];
    $("found").replaceChildren(...items);
    $("shown").textContent = `${count(names.length)} clusters`;
    $("copy").disabled = $("save").disabled = true;
    delete document.body.dataset.picked;
  };

  const csv = () => {
    const columns = { row, id, text, cluster, distance };
    const known = Object.keys(columns).filter((name) => columns[name]);
    const quoted = (value) =>
      typeof value === "string" ? `"${value.replaceAll('"', '""')}"` : String(value);
    const lines = picked.map((i) => known.map((name) => quoted(columns[name][i])).join(","));
    return [known.join(","), ...lines, ""].join("\n");
  };
  const download = (blob, name) => {
    const link = element("a", { download: name, href: URL.createObjectURL(blob) });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
  $("copy").addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(csv());
    } catch { // not where the browser keeps the clipboard from files
      const area = element("textarea");
      area.value = csv();
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    status(`${rows(picked.length)} copied`);
  });
  $("save").addEventListener("click", () =>
    download(new Blob([csv()], { type: "text/csv" }), "rows.csv"));

  // What is chosen: nothing, a cluster, a group, what a search finds, or rows.
  const rowsWhere = (wanted) => {
    const found = [];
    for (let i = 0; i < n; i++) if (wanted(i)) found.push(i);
    return found;
  };
  const rowsOf = (number) => rowsWhere((i) => cluster[i] === number);
  const select = (chosen) => {
    bright = null;
    if (chosen) {
      bright = new Uint8Array(n);
      for (const i of chosen) bright[i] = 1;
    }
  };
  const mark = (chosen) => {
    for (const card of cards) {
      const on = Number(card.dataset.cluster) === chosen;
      card.classList.toggle("chosen", on);
      card.querySelector("button").setAttribute("aria-pressed", String(on));
    }
    const hash = chosen < 0 ? "" : `#cluster=${chosen}`;
    try {
      const here = location.href.split("#")[0];
      if (location.hash !== hash) history.replaceState(null, "", here + hash);
    } catch { /* not where the page has no address of its own */ }
  };
  let idle = true; // nothing is chosen, so that the mouse may light a cluster
  const show = (chosen, clusters, words, named) => {
    idle = false;
    hovered = null;
    for (const card of cards) card.classList.remove("hidden");
    select(chosen);
    lit = clusters;
    list(chosen, named);
    status(words);
    draw();
  };
  const everything = () => {
    idle = true;
    hovered = null;
    select(null);
    lit = null;
    mark(-1);
    contents();
    status("");
    $("search").value = "";
    for (const card of cards) card.classList.remove("hidden");
    draw();
  };
  const choose = (number, bring = false) => {
    const inside = rowsOf(number);
    $("search").value = "";
    const words = `Cluster ${number}: ${rows(inside.length)} on the map`;
    show(inside, new Set([number]), words, [number]);
    mark(number);
    if (bring) {
      zoomTo(inside);
      $("search").scrollIntoView({ block: "start" });
    }
  };
  const chooseGroup = (number) => {
    const inside = rowsWhere((i) => groups[cluster[i]] === number);
    const members = names.map((_, j) => j).filter((j) => groups[j] === number);
    mark(-1);
    show(inside, new Set(members), `${data.groupNames[number]}: ${rows(inside.length)}`);
    zoomTo(inside);
  };
  const pick = (chosen, words) => {
    mark(-1);
    show(chosen, new Set(chosen.map((i) => cluster[i])), `${rows(chosen.length)} ${words}`);
  };
  const search = (words) => {
    const wanted = words.trim().toLowerCase();
    if (!wanted) return everything();
    const has = (value) => value != null && value.toLowerCase().includes(wanted);
    const named = names.map((_, j) => j)
      .filter((j) => has(names[j]) || String(j) === wanted || data.terms?.[j].some(has))
      .sort((a, b) => has(names[b]) - has(names[a]) || sizes[b] - sizes[a]);
    const own = rowsWhere((i) =>
      has(id?.[i]) || has(text?.[i]) || (!id && String(row[i]) === wanted));
    const inside = new Set(own.map((i) => cluster[i])), clusters = new Set([...named, ...inside]);
    mark(-1);
    const also = named.length
      ? `${named.length} cluster${named.length > 1 ? "s" : ""} by name, ` : "";
    show(own, clusters, `${also}${rows(own.length)} found in ${inside.size} ` +
      `cluster${inside.size === 1 ? "" : "s"}`, named);
    const calls = new Set(named);
    select([...own, ...rowsWhere((i) => calls.has(cluster[i]))]);
    for (const card of cards) {
      const number = Number(card.dataset.cluster);
      card.classList.toggle("hidden", !clusters.has(number) && !has(card.textContent));
    }
  };
  let waiting;
  $("search").addEventListener("input", (event) => {
    clearTimeout(waiting);
    waiting = setTimeout(() => search(event.target.value), 150);
  });
  $("search").addEventListener("keydown", (event) => {
    if (event.key === "Enter") $("found").querySelector("button")?.click();
  });

  // The mouse on a cluster dims the others, unless something is chosen.
  let hovered = null;
  const hover = (number) => {
    if (!idle || number === hovered) return;
    hovered = number;
    select(number === null ? null : rowsOf(number));
    lit = number === null ? null : new Set([number]);
    draw();
  };
  const nearest = (left, top, within) => {
    let best = -1, least = within * within;
    for (let i = 0; i < n; i++) {
      const apart = (screen.px(x[i]) - left) ** 2 + (screen.py(y[i]) - top) ** 2;
      if (apart < least) { least = apart; best = i; }
    }
    return best;
  };
  const tip = $("tip");
  const point = (left, top) => {
    const i = nearest(left, top, 12);
    tip.hidden = i < 0;
    hover(i < 0 ? null : cluster[i]);
    if (i < 0) return;
    const name = element("b", { style: `--colour:${data.colours[cluster[i]]}` }, names[cluster[i]]);
    const words = text?.[i] ?? id?.[i] ?? `row ${row[i]}`;
    const value = column && !column.is_scale && column.legend.find(([each]) => each === code(i));
    tip.replaceChildren(name, element("span", {}, id && text ? `${id[i]}: ${words}` : words),
      ...(value ? [element("small", {}, `${column.name}: ${value[1]}`)] : []));
    const across = Math.min(left + 14, screen.width - tip.offsetWidth - 6);
    const below = top + 16 + tip.offsetHeight <= screen.height;
    const down = below ? top + 16 : top - tip.offsetHeight - 10;
    Object.assign(tip.style, { left: `${Math.max(4, across)}px`, top: `${down}px` });
  };

  // Drag moves, shift or the button picks, two fingers and the wheel zoom, a tap chooses.
  const fingers = new Map();
  let started = null, path = null;
  const place = (event) => {
    const box = stage.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const wants = () => $("lasso").getAttribute("aria-pressed") === "true";
  stage.addEventListener("pointerdown", (event) => {
    if (event.target.closest("button, #legend") || event.button) return;
    const at = place(event);
    fingers.set(event.pointerId, at);
    stage.setPointerCapture(event.pointerId);
    started = { at, view: [...view.at], target: event.target, moved: false };
    path = event.shiftKey || wants() ? [at] : null;
    if (path) event.preventDefault();
  });
  stage.addEventListener("pointermove", (event) => {
    const at = place(event);
    if (!fingers.has(event.pointerId)) {
      return event.target.closest("button, #legend") || point(...at);
    }
    const before = fingers.get(event.pointerId);
    fingers.set(event.pointerId, at);
    if (fingers.size === 2) {
      const other = [...fingers].find(([key]) => key !== event.pointerId)[1];
      const apart = (one) => Math.hypot(one[0] - other[0], one[1] - other[1]) || 1;
      started.moved = true;
      return zoomAt((at[0] + other[0]) / 2, (at[1] + other[1]) / 2, apart(at) / apart(before));
    }
    const moved = [at[0] - started.at[0], at[1] - started.at[1]];
    if (!started.moved && Math.hypot(...moved) < 6) return undefined;
    started.moved = true;
    tip.hidden = true;
    hover(null);
    if (path) {
      path.push(at);
      paint();
      const brush = canvas.getContext("2d"), scale = devicePixelRatio || 1;
      brush.globalAlpha = 1;
      brush.strokeStyle = css("--accent");
      brush.lineWidth = 1.5 * scale;
      brush.beginPath();
      for (const [left, top] of path) brush.lineTo(left * scale, top * scale);
      brush.stroke();
      return undefined;
    }
    if (event.pointerType === "touch" && view.zoom <= 1) return undefined; // scrolls the page
    view.at = [started.view[0] - moved[0] / screen.fx, started.view[1] + moved[1] / screen.fy];
    overlay.style.transform = `translate(${moved[0]}px, ${moved[1]}px)`;
    return draw(false);
  });
  const within = (left, top) => {
    let inside = false;
    for (let i = 0, j = path.length - 1; i < path.length; j = i++) {
      const [ax, ay] = path[i], [bx, by] = path[j];
      const crosses = ay > top !== by > top;
      if (crosses && left < ((bx - ax) * (top - ay)) / (by - ay) + ax) inside = !inside;
    }
    return inside;
  };
  const release = (event) => {
    if (!fingers.delete(event.pointerId) || fingers.size) return;
    const { moved, at, target } = started;
    stage.classList.toggle("zoomed", view.zoom > 1);
    if (path && moved) {
      const inside = rowsWhere((i) => within(screen.px(x[i]), screen.py(y[i])));
      path = null;
      pick(inside, "picked");
    } else if (moved) draw();
    else if (event.type === "pointerup") {
      const label = target.closest("[data-cluster], [data-group]")?.dataset ?? {};
      const i = nearest(...at, 12);
      if (label.cluster !== undefined) choose(Number(label.cluster));
      else if (label.group !== undefined) chooseGroup(Number(label.group));
      else if (i >= 0) choose(cluster[i]);
      else everything();
    }
    path = null;
  };
  stage.addEventListener("pointerup", release);
  stage.addEventListener("pointercancel", release);
  stage.addEventListener("pointerleave", () => { tip.hidden = true; hover(null); });
  stage.addEventListener("wheel", (event) => {
    event.preventDefault();
    const { deltaY: delta, deltaMode, ctrlKey } = event;
    // A notch of a wheel is a large step; touchpads send many small ones.
    const isNotch = deltaMode || Math.abs(delta) >= 50;
    const notches = isNotch ? Math.sign(delta) : delta / (ctrlKey ? 12 : 100);
    zoomAt(...place(event), 1.3 ** -notches);
    stage.classList.toggle("zoomed", view.zoom > 1);
  }, { passive: false });
  const middle = (factor) => zoomAt(screen.width / 2, screen.height / 2, factor);
  $("in").addEventListener("click", () => middle(1.3));
  $("out").addEventListener("click", () => middle(1 / 1.3));
  $("whole").addEventListener("click", whole);
  $("lasso").addEventListener("click", () =>
    $("lasso").setAttribute("aria-pressed", String(!wants())));

  // Colours by a column, and what they stand for.
  for (const [i, each] of data.columns.entries()) {
    each.codes = decode(each.codes, Uint8Array);
    $("colour").append(element("option", { value: i }, each.name));
  }
  $("by").hidden = !data.columns.length;
  const gradient = (shades) => {
    const some = shades.filter((_, i) => i === 254 || (i < 254 && i % 32 === 0));
    return `linear-gradient(90deg, ${some.join()})`;
  };
  $("colour").addEventListener("change", (event) => {
    column = data.columns[event.target.value] ?? null;
    const parts = [];
    if (column) {
      parts.push(element("b", {}, column.name));
      const kept = column.is_scale ? column.legend.slice(3) : column.legend;
      if (column.is_scale) {
        const style = `background:${gradient(column.colours)}`;
        parts.push(element("div", { class: "scale", style }));
        parts.push(element("div", { class: "ticks" },
          ...column.legend.slice(0, 3).map(([, words]) => element("span", {}, words))));
      }
      for (const [number, words] of kept) {
        const dot = element("span", { class: "dot", style: `--colour:${column.colours[number]}` });
        const button = element("button", { type: "button" }, dot, words);
        button.addEventListener("click", () =>
          pick(rowsWhere((i) => column.codes[i] === number), `of ${column.name} ${words}`));
        parts.push(button);
      }
    }
    $("legend").replaceChildren(...parts);
    draw();
  });

  // The map as it is now, of the size of a slide.
  const poster = () => {
    const width = 1920, height = 1080, size = radius() * 1.25;
    const font = "system-ui, -apple-system, 'Segoe UI', Arial, sans-serif";
    const [ink, paper, soft] = ["--text", "--card", "--soft"].map(css);
    const viewBox = `0 0 ${width} ${height}`;
    const root = drawing("svg", { width, height, viewBox, "font-family": font });
    const words = (left, top, pixels, fill, content, weight = 400) => drawing("text",
      { x: left, y: top, "font-size": pixels, fill, "font-weight": weight }, content);
    root.append(drawing("rect", { width, height, fill: paper }),
      words(48, 62, 36, ink, data.title, 700), words(48, 96, 20, soft, data.sentence));
    const to = frame(width, height, 116, column ? 200 : 0), paths = new Map();
    Object.assign(to, { letters: 1.25, taken: column ? [[0, 0, 200, height]] : [] });
    for (let i = 0; i < n; i++) {
      const left = to.px(x[i]), top = to.py(y[i]);
      if (left < 0 || top < to.top || left > width || top > height) continue;
      const key = `${code(i)} ${bright ? bright[i] : 2}`;
      paths.set(key, `${paths.get(key) ?? ""}M${left.toFixed(1)} ${top.toFixed(1)}h0`);
    }
    const opacity = [0.18, 0.95, 0.72], shades = colours();
    for (const [key, d] of [...paths].sort((a, b) => a[0].slice(-1) - b[0].slice(-1))) {
      const [number, shining] = key.split(" ");
      root.append(drawing("path", {
        d, stroke: shades[number], fill: "none", "stroke-linecap": "round",
        "stroke-width": 2 * size, opacity: opacity[shining],
      }));
    }
    root.append(...written(to, ink, paper));
    if (column) {
      let down = height - 40 - 28 * column.legend.length;
      root.append(words(48, down, 20, ink, column.name, 700));
      for (const [number, what] of column.legend) {
        down += 28;
        root.append(drawing("circle", { cx: 56, cy: down - 6, r: 8, fill: column.colours[number] }),
          words(74, down, 18, ink, what));
      }
    }
    return new XMLSerializer().serializeToString(root);
  };
  $("svg").addEventListener("click", () =>
    download(new Blob([poster()], { type: "image/svg+xml" }), "map.svg"));
  $("png").addEventListener("click", async () => {
    const image = new Image();
    image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(poster())}`;
    await image.decode();
    const sheet = element("canvas", { width: 3840, height: 2160 });
    sheet.getContext("2d").drawImage(image, 0, 0, 3840, 2160);
    sheet.toBlob((blob) => download(blob, "map.png"));
  });

  for (const card of cards) {
    const number = Number(card.dataset.cluster), button = card.querySelector("button");
    button.addEventListener("click", () => {
      if (button.getAttribute("aria-pressed") === "true") {
        everything();
        whole();
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
  $("clear").addEventListener("click", () => { everything(); whole(); });
  addEventListener("keydown", (event) => { if (event.key === "Escape") everything(); });
  $("order").addEventListener("change", (event) => {
    const by = event.target.value, sign = by === "size" ? -1 : 1;
    cards.sort((a, b) => sign * (Number(a.dataset[by]) - Number(b.dataset[by])));
    document.querySelector(".cards").append(...cards);
  });
  const follow = () => {
    const number = Number(/^#cluster=(\d+)$/.exec(location.hash)?.[1] ?? -1);
    if (number >= 0 && number < names.length) choose(number, true);
  };
  addEventListener("hashchange", follow);
  contents();
  namesDue = true;
  drawNow();
  follow();
  // For whoever looks at the page by a script.
  window.dink = {
    at: (wanted) => {
      const i = row.indexOf(wanted), box = stage.getBoundingClientRect();
      return [box.left + screen.px(x[i]), box.top + screen.py(y[i])];
    },
    chosen: () => (bright ? rowsWhere((i) => bright[i]) : []).map((i) => row[i]),
    zoom: () => view.zoom,
    poster,
  };
  performance.mark("ready");
  document.body.dataset.ready = "true";
})();
