// Charts, as SVG made here. Each says in words what it shows.

import { clock, el, svg } from "./dom.js";

// As wide as the page, so that its words are as large as the others.
const width = () => Math.max(280, Math.min(1180, (document.getElementById("main")?.clientWidth ?? 720) - 70));
const PAD = { left: 56, right: 12, top: 10, bottom: 22 };

/** Steps for an axis from 0 to at least `most`. */
function steps(most) {
  const rough = most / 4 || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((k) => k * power).find((s) => s >= rough) ?? 10 * power;
  const all = [];
  for (let value = 0; value < most + step * 0.999; value += step) all.push(value);
  return all;
}

function label(value) {
  const places = value !== 0 && Math.abs(value) < 0.1 ? 3 : value < 10 ? 2 : 0;
  return `$${value.toFixed(places)}`;
}

/**
 * Lines that hold from point to point until the next. `series`: `{ name, kind, points: [[ms, value or null]] }`.
 */
export function lines(series, { from, to, title, now }) {
  const H = 230;
  const W = width();
  const values = series.flatMap((one) => one.points.map(([, value]) => value)).filter((value) => value !== null);
  if (values.length === 0) return el("p", { class: "soft", text: "Nothing was recorded in this time." });
  const marks = steps(Math.max(...values));
  const top = marks[marks.length - 1];
  const x = (ms) => PAD.left + ((ms - from) / (to - from || 1)) * (W - PAD.left - PAD.right);
  const y = (value) => H - PAD.bottom - (value / top) * (H - PAD.top - PAD.bottom);
  const grid = marks.flatMap((value) => [
    svg("line", { class: "grid", x1: PAD.left, x2: W - PAD.right, y1: y(value), y2: y(value) }),
    svg("text", { x: PAD.left - 6, y: y(value) + 4, "text-anchor": "end", text: label(value) }),
  ]);
  const times = (W < 520 ? [0, 0.5, 1] : [0, 0.25, 0.5, 0.75, 1]).map((share) => {
    const ms = from + (to - from) * share;
    const anchor = share === 0 ? "start" : share === 1 ? "end" : "middle";
    return svg("text", { x: x(ms), y: H - 5, "text-anchor": anchor, text: clock(new Date(ms).toISOString(), now) });
  });
  const paths = series.map((one) => svg("path", { class: `line ${one.kind}`, d: stepped(one.points, from, to, x, y) }));
  const cross = svg("line", { class: "cross", y1: PAD.top, y2: H - PAD.bottom, visibility: "hidden" });
  const last = series.map((one) => `${one.name} ${atOf(one.points, to)}`).join(", ");
  const readout = el("div", { class: "readout", text: `Now: ${last}` });
  const picture = svg("svg", { class: "chart", viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `${title}. Now: ${last}` },
    grid, times, paths, cross);
  const show = (event) => {
    const box = picture.getBoundingClientRect();
    const at = Math.max(PAD.left, Math.min(W - PAD.right, ((event.clientX - box.left) / box.width) * W));
    const ms = from + ((at - PAD.left) / (W - PAD.left - PAD.right)) * (to - from);
    cross.setAttribute("x1", at);
    cross.setAttribute("x2", at);
    cross.setAttribute("visibility", "visible");
    readout.textContent = `${clock(new Date(ms).toISOString(), now)}: ${series.map((one) => `${one.name} ${atOf(one.points, ms)}`).join(", ")}`;
  };
  picture.addEventListener("pointermove", show);
  picture.addEventListener("pointerleave", () => {
    cross.setAttribute("visibility", "hidden");
    readout.textContent = `Now: ${last}`;
  });
  const legend = el("ul", { class: "legend" }, series.map((one) => el("li", {},
    svg("svg", { class: "chart", viewBox: "0 0 26 8", "aria-hidden": "true" }, svg("line", { class: `line ${one.kind}`, x1: 0, x2: 26, y1: 4, y2: 4 })),
    one.name)));
  return el("figure", {}, el("figcaption", { text: title }), picture, readout, legend);
}

function valueAt(points, ms) {
  let found = null;
  for (const [at, value] of points) {
    if (at > ms) break;
    found = value;
  }
  return found;
}

function atOf(points, ms) {
  const value = valueAt(points, ms);
  return value === null ? "\u2013" : `$${value.toFixed(4)}`;
}

function stepped(points, from, to, x, y) {
  let path = "";
  let before = null;
  for (const [at, value] of points) {
    const px = x(Math.max(from, Math.min(to, at))).toFixed(1);
    if (before !== null) path += `L${px} ${y(before).toFixed(1)}`;
    if (value !== null) path += before === null ? `M${px} ${y(value).toFixed(1)}` : `L${px} ${y(value).toFixed(1)}`;
    before = value;
  }
  if (before !== null) path += `L${x(to).toFixed(1)} ${y(before).toFixed(1)}`;
  return path;
}

/** Bars: `[[name, value]]`. */
export function bars(rows, title) {
  const H = 130;
  const W = Math.min(width(), 560);
  const marks = steps(Math.max(...rows.map(([, value]) => value), 0.01));
  const top = marks[marks.length - 1];
  const y = (value) => H - PAD.bottom - (Math.max(0, value) / top) * (H - PAD.top - PAD.bottom);
  const step = (W - PAD.left - PAD.right) / rows.length;
  const said = rows.map(([name, value]) => `${name} ${label(value)}`).join(", ");
  return el("figure", {},
    svg("svg", { class: "chart", viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `${title}: ${said}` },
      marks.flatMap((value) => [
        svg("line", { class: "grid", x1: PAD.left, x2: W - PAD.right, y1: y(value), y2: y(value) }),
        svg("text", { x: PAD.left - 6, y: y(value) + 4, "text-anchor": "end", text: label(value) }),
      ]),
      rows.map(([name, value], index) => svg("rect", {
        class: "bars", x: (PAD.left + index * step + step * 0.12).toFixed(1), width: (step * 0.76).toFixed(1),
        y: y(value).toFixed(1), height: (H - PAD.bottom - y(value)).toFixed(1),
      }, svg("title", { text: `${name}: ${label(value)}` }))),
      [0, rows.length - 1].filter((at, index, all) => all.indexOf(at) === index).map((at) => svg("text", {
        x: (PAD.left + (at + 0.5) * step).toFixed(1), y: H - 5, "text-anchor": "middle", text: rows[at][0],
      }))));
}
