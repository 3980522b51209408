// Makes elements, from texts alone: nothing that came from elsewhere is ever read as markup.

const SVG = "http://www.w3.org/2000/svg";

/** An element. `props`: `class`, `text`, `on` (listeners), and attributes; children are nodes or texts. */
export function el(tag, props = {}, ...children) {
  return fill(document.createElement(tag), props, children);
}

/** The same, of SVG. */
export function svg(tag, props = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

function fill(node, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    } else if (name === "text") {
      node.textContent = value;
    } else {
      node.setAttribute(name, value === true ? "" : String(value));
    }
  }
  put(node, children);
  return node;
}

function put(node, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : String(child));
  }
}

/** Sets what is in a node, unless it is the same already: what has the focus keeps it. */
export function set(node, ...children) {
  const fresh = document.createDocumentFragment();
  put(fresh, children);
  const holder = node.cloneNode(false);
  holder.append(fresh);
  if (holder.isEqualNode(node)) return;
  node.replaceChildren(...holder.childNodes);
}

/** Keeps one node for each item, in order: made once, changed as its item changes. */
export function keyed(parent, items, key, make) {
  const known = parent.haggleKeyed ?? (parent.haggleKeyed = new Map());
  const wanted = new Set();
  let at = parent.firstChild;
  for (const item of items) {
    const id = String(key(item));
    if (wanted.has(id)) continue;
    wanted.add(id);
    let one = known.get(id);
    if (!one) {
      one = make(item);
      known.set(id, one);
    }
    const now = JSON.stringify(item);
    if (one.last !== now) {
      one.last = now;
      one.update(item);
    }
    if (one.node === at) {
      at = at.nextSibling;
    } else {
      parent.insertBefore(one.node, at);
    }
  }
  for (const [id, one] of known) {
    if (!wanted.has(id)) {
      one.node.remove();
      known.delete(id);
    }
  }
}

/** A table that becomes cards where there is little room. Columns: `[name, class]`. */
export function table(caption, columns) {
  const names = columns.map(([name, kind]) =>
    el("th", { scope: "col", role: "columnheader", class: kind === "n" ? "n" : null },
      name === "" ? el("span", { class: "hidden", text: "Actions" }) : name));
  const body = el("tbody", { role: "rowgroup" });
  const all = el("table", { class: "cards", role: "table" },
    el("caption", { class: "hidden", text: caption }),
    el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, names)),
    body);
  return { node: el("div", { class: "scroll cards" }, all), body };
}

/** A row of such a table: one that says how its cells are filled. */
export function row(columns, cells) {
  const made = columns.map(([name, kind], index) =>
    el(index === 0 ? "th" : "td", {
      role: index === 0 ? "rowheader" : "cell",
      scope: index === 0 ? "row" : null,
      class: kind ?? null,
      "data-label": name === "" || index === 0 ? null : name,
    }));
  const node = el("tr", { role: "row" }, made);
  const update = (item) => {
    cells(item).forEach((content, index) => {
      const list = [content].flat(Infinity);
      const empty = list.every((one) => one === null || one === "" || one === undefined);
      made[index].classList.toggle("empty", empty);
      set(made[index], el("div", {}, list));
    });
  };
  return { node, update };
}

/** What a state is, for the eye; the sentence beside it says it in words. */
export function tone(word) {
  return el("span", { class: `tone ${word}`, "aria-hidden": "true" });
}

/** How much of something is used, for the eye; a text beside it says it. */
export function bar(share, kind = "") {
  const inner = el("i");
  inner.style.width = `${Math.max(0, Math.min(1, share)) * 100}%`;
  return el("div", { class: `bar ${kind}`, "aria-hidden": "true" }, inner);
}

/** Dollars, from a decimal text. */
export function dollars(text, places = 2) {
  if (text === null || text === undefined) return "unknown";
  const number = Number(text);
  const shown = Math.abs(number).toLocaleString("en-US", { minimumFractionDigits: places, maximumFractionDigits: places });
  return `${number < 0 && Number(shown.replaceAll(",", "")) !== 0 ? "\u2212" : ""}$${shown}`;
}

/** A rate per hour. */
export function perHour(text) {
  return `${dollars(text, 4)}/h`;
}

let zone = "UTC";

/** Times are shown in this zone. */
export function useZone(name) {
  zone = name;
}

const formats = new Map();

function format(options) {
  const id = zone + JSON.stringify(options);
  if (!formats.has(id)) formats.set(id, new Intl.DateTimeFormat("en-GB", { timeZone: zone, ...options }));
  return formats.get(id);
}

/** A moment by the clock: with its day where that is not today's. */
export function clock(at, now, seconds = false) {
  const moment = new Date(at);
  const day = format({ dateStyle: "short" });
  const time = format(seconds ? { hour: "2-digit", minute: "2-digit", second: "2-digit" } : { hour: "2-digit", minute: "2-digit" });
  if (now && day.format(moment) === day.format(new Date(now))) return time.format(moment);
  return `${format({ day: "numeric", month: "short" }).format(moment)} ${time.format(moment)}`;
}

/** A moment, for machines too. */
export function time(at, now) {
  return el("time", { datetime: at, title: at, text: clock(at, now) });
}

/** A span of seconds. */
export function span(seconds) {
  const s = Math.max(0, Math.round(seconds));
  const [d, h, m] = [Math.floor(s / 86400), Math.floor(s / 3600) % 24, Math.floor(s / 60) % 60];
  if (d > 0) return `${d} d ${h} h`;
  if (h > 0) return `${h} h ${String(m).padStart(2, "0")} min`;
  if (m > 0) return `${m} min`;
  return `${s} s`;
}

/** So many of something. */
export function count(number, one, many = `${one}s`) {
  return `${number} ${number === 1 ? one : many}`;
}
