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

  // Filtering the layers.
  const rows = [...find("#layers").tBodies[0].rows];
  const said = (row) => `${row.textContent} ${find(".why", row)?.title ?? ""}`.toLowerCase();
  const words = new Map(rows.map((row) => [row, said(row)]));
  const filter = () => {
    const parts = find("#find").value.toLowerCase().split(/\s+/).filter(Boolean);
    const kind = find("#kind")?.value ?? "";
    const flagged = find("#flagged").checked;
    let shown = 0;
    for (const row of rows) {
      const fits = parts.every((part) => words.get(row).includes(part)) &&
        (!kind || row.dataset.kind === kind) && (!flagged || Number(row.dataset.flagged) > 0);
      row.hidden = !fits;
      shown += fits;
    }
    find("#shown").textContent = `${shown} of ${rows.length} layers`;
    find("#nothing").hidden = shown > 0;
  };
  for (const id of ["#find", "#kind", "#flagged"]) find(id)?.addEventListener("input", filter);
  filter();

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
  find("#layers").addEventListener("click", (event) => {
    if (event.target.closest("a")?.hash === location.hash) openNamed();
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

  // CSV files: packed in the page, or put together from a layer's channels.
  const save = (name, text) => {
    const url = URL.createObjectURL(new Blob([text], { type: "text/csv;charset=utf-8" }));
    const link = make("a", "", { href: url, download: name });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  };
  const unpacked = async (id) => {
    const coded = atob(document.getElementById(id).textContent);
    const bytes = Uint8Array.from(coded, (sign) => sign.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  };
  const channels = JSON.parse(find("#channels").textContent);
  const headings = {
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
  const quoted = (value) => {
    const text = String(value);
    return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button.csv");
    if (!button) return;
    const { csv, channels: place } = button.dataset;
    if (csv !== undefined) {
      save(`${csv}.csv`, await unpacked(`csv-${csv}`));
      return;
    }
    const data = channels[Number(place)];
    const lines = [Object.keys(data.columns), ...channelRows(data)];
    save(`channels-${place}.csv`, lines.map((line) => line.map(quoted).join(",")).join("\n") + "\n");
  });

  // All channels of a layer, made when they are asked for.
  const shown = (value, name) => {
    if (typeof value !== "number") return value;
    if (name === "channel") return String(value);
    if (name === "L" && value >= 0.9995 && value < 1) return "> 0.999";
    const digits = name === "s_c" ? 4 : 3;
    const small = value !== 0 && Math.abs(value) < 10 ** -digits;
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
      const button = make("button", headings[name], { type: "button", class: "sort" });
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
      box = channelTable(channels[Number(button.dataset.layer)], `Channels of ${layer.dataset.name}`);
      button.parentElement.after(box);
    } else {
      box.hidden = !box.hidden;
    }
    button.setAttribute("aria-expanded", String(!box.hidden));
  });
})();
