"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("js");
  const find = (selector, inside = document) => inside.querySelector(selector);
  const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];
  const make = (tag, text = "", settings = {}) => {
    const element = document.createElement(tag);
    element.textContent = text;
    for (const [name, value] of Object.entries(settings)) element.setAttribute(name, value);
    return element;
  };

  // Theme: auto, dark, light. Pages opened from a mail may have no storage.
  const remembered = (value) => {
    try {
      if (value === undefined) return localStorage.getItem("acon-theme");
      localStorage.setItem("acon-theme", value);
    } catch { /* no storage: the choice lasts as long as the page */ }
    return value;
  };
  const themes = ["auto", "dark", "light"];
  const setTheme = (name) => {
    if (name === "auto") delete root.dataset.theme;
    else root.dataset.theme = name;
    find("#theme span").textContent = name;
  };
  const stored = remembered();
  if (themes.includes(stored)) setTheme(stored);
  find("#theme").addEventListener("click", () => {
    const name = themes[(themes.indexOf(root.dataset.theme ?? "auto") + 1) % themes.length];
    setTheme(name);
    remembered(name);
  });

  // Sorting: rising or falling by a column; what is empty stays at the end.
  const keyOf = (cell, kind) => {
    const text = cell.dataset.v ?? cell.textContent.trim();
    return kind === "text" ? text.toLowerCase() : text === "" ? NaN : Number(text);
  };
  const compare = (a, b, kind) => {
    if (kind === "text") return a.localeCompare(b, "en", { numeric: true });
    if (Number.isNaN(a) || Number.isNaN(b)) return 0;
    return a - b;
  };
  const sortBy = (table, heading, falling) => {
    const column = [...heading.parentElement.children].indexOf(heading);
    const kind = heading.dataset.kind;
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => [keyOf(row.cells[column], kind), row]);
    const empty = (key) => (kind === "text" ? key === "" : Number.isNaN(key));
    rows.sort(([a], [b]) => {
      if (empty(a) || empty(b)) return empty(a) - empty(b);
      return falling ? compare(b, a, kind) : compare(a, b, kind);
    });
    for (const other of heading.parentElement.children) other.setAttribute("aria-sort", "none");
    heading.setAttribute("aria-sort", falling ? "descending" : "ascending");
    body.append(...rows.map(([, row]) => row));
  };
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button.sort");
    if (!button) return;
    const heading = button.closest("th");
    sortBy(button.closest("table"), heading, heading.getAttribute("aria-sort") === "ascending");
  });

  // Filtering the layers of a run.
  const filtered = (box) => {
    const rows = [...find("table", box).tBodies[0].rows];
    const said = (row) => `${row.textContent} ${find(".why", row)?.title ?? ""}`.toLowerCase();
    const words = new Map(rows.map((row) => [row, said(row)]));
    const filter = () => {
      const parts = find(".find", box).value.toLowerCase().split(/\s+/).filter(Boolean);
      const kind = find(".kind", box)?.value ?? "";
      const linear = find("input.linear", box).checked;
      let shown = 0;
      for (const row of rows) {
        const fits = parts.every((part) => words.get(row).includes(part)) &&
          (!kind || row.dataset.kind === kind) && (!linear || Number(row.dataset.linear) > 0);
        row.hidden = !fits;
        shown += fits;
      }
      find(".shown", box).textContent = `${shown} of ${rows.length} layer${rows.length === 1 ? "" : "s"}`;
      find(".nothing", box).hidden = shown > 0;
    };
    for (const name of [".find", ".kind", "input.linear"]) {
      find(name, box)?.addEventListener("input", filter);
    }
    filter();
  };
  all(".layers").forEach(filtered);

  // Layers: open the one that a link names; all for printing.
  const layers = all("details.layer");
  const openNamed = () => {
    const named = location.hash ? document.getElementById(location.hash.slice(1)) : null;
    if (named?.matches("details.layer")) {
      named.open = true;
      find("summary", named).focus({ preventScroll: true });
      named.scrollIntoView();
    }
  };
  addEventListener("hashchange", openNamed);
  document.addEventListener("click", (event) => {  // again to where the page is already
    const link = event.target.closest("a");
    if (link && link.getAttribute("href") === location.hash) openNamed();
  });
  openNamed();
  const toggle = find("#all");
  toggle.addEventListener("click", () => {
    const open = toggle.getAttribute("aria-pressed") !== "true";
    for (const layer of layers) layer.open = open;
    toggle.setAttribute("aria-pressed", String(open));
    toggle.textContent = open ? "Close all" : "Open all";
  });
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = layers.filter((layer) => !layer.open);
    for (const layer of closed) layer.open = true;
  });
  addEventListener("afterprint", () => {
    for (const layer of closed) layer.open = false;
  });

  // The section that is on the screen is marked in the navigation.
  const links = new Map(all("nav a").map((link) => [link.hash.slice(1), link]));
  const headings = [...links.keys()].map((id) => document.getElementById(id)).filter(Boolean);
  const mark = () => {
    const above = headings.filter((heading) => heading.getBoundingClientRect().top < 120);
    const current = (above.at(-1) ?? headings[0])?.id;
    for (const [id, link] of links) {
      const now = id === current;
      if (now && !link.hasAttribute("aria-current")) {  // in view, where the line is too long
        link.parentElement.scrollLeft = link.offsetLeft - link.parentElement.offsetLeft - 40;
      }
      link.toggleAttribute("aria-current", now);
    }
  };
  let waiting = false;
  addEventListener("scroll", () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; mark(); });
  }, { passive: true });
  mark();

  // Files: CSV, packed in the page or put together from a layer's channels, and figures.
  const save = (name, content, type) => {
    const url = URL.createObjectURL(new Blob([content], { type }));
    const link = make("a", "", { href: url, download: name });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  };
  const saveTable = (name, text) => save(name, text, "text/csv;charset=utf-8");
  const unpacked = async (id) => {
    const coded = atob(document.getElementById(id).textContent);
    const bytes = Uint8Array.from(coded, (sign) => sign.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  };
  let parsed;
  const layerData = (element) => {
    parsed ??= JSON.parse(find("#data").textContent);
    return parsed[Number(element.closest("details").dataset.layer)];
  };
  const columnNames = {
    channel: "Channel", L: "L", s_c: "s_c", G: "G", kappa: "κ", beta_mean: "β mean",
    beta_std: "β sd", cause: "Cause",
  };
  const channelRows = ({ columns, causes }) => {
    const names = Object.keys(columns);
    return columns.channel.map((_, place) => names.map((name) => {
      const value = columns[name][place];
      return value === null ? "" : name === "cause" ? causes[value] : value;
    }));
  };
  const quoted = (value) => {  // a cell of text that begins like a formula gets an apostrophe
    const formula = typeof value === "string" && /^[=+\-@\t\r]/.test(value);
    const text = (formula ? "'" : "") + String(value);
    return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button.csv");
    if (!button) return;
    const { csv, channels } = button.dataset;
    if (csv !== undefined) {
      saveTable(`${csv}.csv`, await unpacked(`csv-${csv}`));
      return;
    }
    const data = layerData(button);
    const lines = [Object.keys(data.columns), ...channelRows(data)];
    saveTable(`${channels}.csv`, lines.map((line) => line.map(quoted).join(",")).join("\n") + "\n");
  });

  // A figure as it is seen, its colours written into it.
  const standalone = (drawing) => {
    const copy = drawing.cloneNode(true);
    const parts = all("*", drawing);
    all("*", copy).forEach((part, place) => {
      const seen = getComputedStyle(parts[place]);
      if (!seen.fill) return;
      for (const key of ["fill", "stroke", "stroke-width", "stroke-dasharray", "font-size", "font-family"]) {
        if (key.startsWith("font") && part.tagName !== "text" && part.tagName !== "tspan") continue;
        part.setAttribute(key, seen.getPropertyValue(key));
      }
      if (part.tagName === "image") part.setAttribute("filter", seen.filter);
      part.removeAttribute("class");
    });
    const { subject } = drawing.dataset;  // the page's title, which the drawing leaves behind
    const above = subject ? 18 : 0;
    const [, , width, tall] = drawing.getAttribute("viewBox").split(" ").map(Number);
    const height = tall + above;
    copy.setAttribute("viewBox", `0 ${-above} ${width} ${height}`);
    copy.setAttribute("width", width);
    copy.setAttribute("height", height);
    const paper = document.createElementNS(drawing.namespaceURI, "rect");
    const card = drawing.matches(".light") ? "#ffffff" : getComputedStyle(drawing.closest("figure")).backgroundColor;
    for (const [key, value] of [["y", -above], ["width", width], ["height", height], ["fill", card]]) paper.setAttribute(key, value);
    copy.prepend(paper);
    if (subject) {
      const text = document.createElementNS(drawing.namespaceURI, "text");
      text.textContent = subject;
      const fill = getComputedStyle(drawing.closest("figure")).color;
      for (const [key, value] of [["x", 4], ["y", -4], ["font-size", 11], ["font-family", "sans-serif"], ["fill", fill]]) text.setAttribute(key, value);
      copy.append(text);
    }
    return { text: new XMLSerializer().serializeToString(copy), width, height };
  };
  const asPicture = async ({ text, width, height }) => {
    const picture = new Image();
    const bytes = new TextEncoder().encode(text);
    picture.src = `data:image/svg+xml;base64,${btoa(Array.from(bytes, (one) => String.fromCharCode(one)).join(""))}`;
    await picture.decode();
    const canvas = make("canvas");
    const scale = 2000 / width;
    [canvas.width, canvas.height] = [2000, Math.round(height * scale)];
    canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
    return new Promise((done) => canvas.toBlob(done, "image/png"));
  };
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button.save");
    if (!button) return;
    const figure = button.closest("figure");
    const drawing = all("svg.drawing", figure).find((one) => one.getClientRects().length);
    const found = standalone(drawing);
    const name = `${figure.id}.${button.dataset.as}`;
    if (button.dataset.as === "svg") save(name, found.text, "image/svg+xml");
    else save(name, await asPicture(found), "image/png");
  });

  // A unit of a layer, redrawn at another β or of another channel.
  const sigmoid = (z) => 1 / (1 + Math.exp(-z));
  const acon = (x, unit, beta) => {
    const d = (unit.p1 - unit.p2) * x;
    return d * sigmoid(beta * d) + unit.p2 * x;
  };
  const gaussianL = (unit, beta) => {  // of the best line over 1201 points of mean ± 6 std
    let [n, sz, sy, szz, szy, syy] = [0, 0, 0, 0, 0, 0];
    for (let step = -600; step <= 600; step += 1) {
      const z = step / 100;
      const weight = Math.exp(-z * z / 2);
      const y = acon(unit.mean_x + unit.std_x * z, unit, beta);
      n += weight; sz += weight * z; sy += weight * y;
      szz += weight * z * z; szy += weight * z * y; syy += weight * y * y;
    }
    const spread = syy - sy * sy / n;
    return spread > 0 ? (szy - sz * sy / n) ** 2 / (szz - sz * sz / n) / spread : 1;
  };
  const unitOf = (box, place) =>
    Object.fromEntries(Object.entries(layerData(box).units).map(([key, list]) => [key, list[place]]));
  const drawUnit = (box, place, beta) => {
    const unit = unitOf(box, place);
    const x = Array.from({ length: 121 }, (_, i) => unit.min_x + (unit.max_x - unit.min_x) * i / 120);
    const ends = [unit.min_x, unit.max_x].flatMap((end) => [unit.p1 * end, unit.p2 * end]);
    const [low, high] = [Math.min(0, ...ends), Math.max(0, ...ends)];
    const span = high > low ? high - low : 1;
    const path = (values) => "M" + values.map((y, i) =>
      `${(330 * i / 120).toFixed(1)} ${(180 * (1 - (y - low) / span)).toFixed(1)}`).join("L");
    find(".curve", box).setAttribute("d", path(x.map((one) => acon(one, unit, beta))));
    find(".fit", box).setAttribute("d", path(x.map((one) => unit.slope * one + unit.intercept)));
    const texts = all(".ends text", box);
    [unit.min_x, unit.max_x, low, high].forEach((value, i) => {
      texts[i].textContent = value.toPrecision(3).replace("-", "−");
    });
    find(".which", box).textContent = unit.channel;
    find(".at", box).textContent = beta.toFixed(2).replace("-", "−");
    find(".measured", box).textContent = shown(unit.L, "L");
    find(".gauss", box).textContent = `L = ${shown(gaussianL(unit, beta), "L")}`;
  };
  const placeOf = (box) => layerData(box).units.channel.indexOf(Number(find("input.channel", box).value));
  document.addEventListener("input", (event) => {
    const box = event.target.closest(".unit");
    if (!box) return;
    const place = placeOf(box);
    const slider = find("input.beta", box);
    event.target.setCustomValidity?.(place < 0 ? "this layer has no such channel with inputs that vary" : "");
    if (place < 0) return;
    if (event.target !== slider) slider.value = layerData(box).units.beta_mean[place];
    drawUnit(box, place, Number(slider.value));
  });
  for (const layer of layers) {
    const box = find(".unit", layer);
    if (box) layer.addEventListener("toggle", () => {
      drawUnit(box, placeOf(box), layerData(box).units.beta_mean[placeOf(box)]);
    }, { once: true });
  }

  // All channels of a layer, made when they are asked for.
  const shown = (value, name) => {
    if (typeof value !== "number") return value;
    if (name === "channel") return String(value);
    if (name === "L" && value >= 0.9995 && value < 1) return "> 0.999";
    const digits = name === "s_c" ? 4 : 3;
    if (value === 0) return "0";
    const small = Math.abs(value) < 10 ** -digits;
    return small ? value.toExponential(1) : value.toFixed(digits);
  };
  const channelTable = (data, label) => {
    const box = make("div", "", { class: "scroll every", role: "region", tabindex: "0", "aria-label": label });
    const table = box.appendChild(make("table", "", { class: "sortable" }));
    const head = table.createTHead().insertRow();
    const names = Object.keys(data.columns);
    for (const name of names) {
      const kind = name === "cause" ? "text" : "number";
      const heading = make("th", "", { scope: "col", "aria-sort": "none", "data-kind": kind });
      const button = make("button", columnNames[name], { type: "button", class: "sort" });
      button.append(make("span", "", { class: "arrow", "aria-hidden": "true" }));
      heading.append(button);
      head.append(heading);
    }
    const body = table.createTBody();
    for (const values of channelRows(data)) {
      const row = body.insertRow();
      values.forEach((value, column) => {
        const text = shown(value, names[column]);
        const cell = column ? make("td", text) : make("th", text, { scope: "row" });
        cell.className = names[column] === "cause" ? "cause" : "n";
        if (names[column] !== "cause") cell.dataset.v = value;
        row.append(cell);
      });
    }
    return box;
  };
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button.channels");
    if (!button) return;
    const layer = button.closest("details");
    let box = find(".every", layer);
    if (!box) {
      box = channelTable(layerData(button), `Channels of ${layer.dataset.name}`);
      button.parentElement.after(box);
    } else {
      box.hidden = !box.hidden;
    }
    button.setAttribute("aria-expanded", String(!box.hidden));
  });
})();
