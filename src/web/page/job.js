// One job: what it does, what it costs, its market, why it is where it is, and what it wrote.

import { get } from "./api.js";
import { actionLine, deadlineOf, eventLine, jobButtons, limitLines, progressOf, savedOf, spentOf } from "./board.js";
import { lines } from "./chart.js";
import { clock, count, dollars, el, keyed, perHour, row, set, table, time, tone } from "./dom.js";
import { INSTANCES, instanceCells } from "./lists.js";

const REPLICAS = [["Replica", null], ["State", "state wide"], ["Runner", ""], ["Progress", "n"], ["Starts", "n"], ["Outbid", "n"], ["Failures", "n"]];
const GONE = [["Instance", null], ["Replica", ""], ["Gone", ""], ["Machine", ""], ["Price", "n"], ["Cost", "n"], ["Because", "wide"]];
const SLOTS = [["Machine", null], ["GPUs", ""], ["Rental", ""], ["Price", "n"], ["Landed per GPU-h", "n"], ["Compute", "n"], ["Disk", "n"], ["Traffic", "n"], ["Boot", "n"], ["Lost work", "n"], ["Waiting", "n"]];

/** The view of a job. */
export function job(app, name) {
  const lead = el("p", { class: "lead" });
  const buttons = el("div", { class: "acts-row" });
  const facts = el("dl", { class: "facts" });
  const trouble = el("div");
  const limits = el("div", { class: "panel" });
  const replicas = table("Replicas", REPLICAS);
  const held = table("Instances", INSTANCES);
  const none = el("p", { class: "panel pad", text: "Nothing is rented for it." });
  const gone = table("Instances that are gone", GONE);
  const goneBox = el("details", {}, el("summary", { text: "Instances that are gone" }), gone.node);
  const market = el("div");
  const why = el("div");
  const events = el("ul", { class: "plain rows panel" });
  const log = logView(app, name);
  const hours = el("select", { id: "hours" }, [[6, "6 hours"], [24, "24 hours"], [168, "7 days"], [720, "30 days"]].map(([value, text]) =>
    el("option", { value, text, selected: value === 24 })));
  hours.addEventListener("change", () => readMarket());
  let now = null;
  let busy = false;
  let again = false;
  let marketAt = 0;

  function show(page) {
    const j = page.job;
    now = page.at;
    set(lead, tone(j.tone), el("span", { text: j.text }));
    set(buttons, jobButtons(j, app, false));
    set(facts, [
      ["Progress", progressOf(j, now)],
      j.deadline ? ["Deadline", deadlineOf(j)] : null,
      ["Spent", spentOf(j)],
      ["Today", dollars(j.spend_today_dollars)],
      ["Saved against on-demand", savedOf(j)],
      ["Billed now", perHour(j.burn_dollars_per_hour)],
      ["Ceiling", j.price_max_dollars_per_gpu_hour ? `${dollars(j.price_max_dollars_per_gpu_hour, 4)} per GPU-h` : "\u2013"],
      ["Best slot now", j.best_dollars_per_gpu_hour ? `${dollars(j.best_dollars_per_gpu_hour, 4)} per useful GPU-h` : noSlot(j)],
      ["On-demand now", j.on_demand_dollars_per_gpu_hour ? `${dollars(j.on_demand_dollars_per_gpu_hour, 4)} per useful GPU-h` : noSlot(j)],
      ["Policy", j.policy === "valid" ? `valid, priority ${j.priority}` : j.policy],
      j.owner ? ["Owner", j.owner] : null,
    ].filter(Boolean).map(([term, said]) => el("div", {}, el("dt", { text: term }), el("dd", {}, said))));
    set(trouble, j.cannot_start ? el("p", { class: "panel pad" }, el("b", { text: `It cannot start: ${j.cannot_start.what}. ` }), j.cannot_start.help) : null);
    set(limits, limitLines(page.limits, now));
    keyed(replicas.body, j.replicas, (r) => r.replica, () => row(REPLICAS, (r) => [
      [r.replica, r.parameters ? el("div", { class: "sub mono", text: Object.entries(r.parameters).map(([k, v]) => `${k}=${v}`).join(" ") }) : null],
      [r.status, r.removed ? el("div", { class: "sub", text: "no longer in its policy" }) : null],
      [r.runner ?? "", r.exit_code === null ? null : el("div", { class: "sub", text: `exit ${r.exit_code}` })],
      r.progress === null ? "" : String(r.progress), String(r.starts), String(r.outbids), String(r.failures),
    ]));
    keyed(held.body, page.instances, (i) => i.instance, () => row(INSTANCES, (i) => instanceCells(i, now)));
    held.node.hidden = page.instances.length === 0;
    none.hidden = page.instances.length > 0;
    keyed(gone.body, page.ended, (i) => i.instance, () => row(GONE, (i) => [
      String(i.instance), i.replica, [time(i.ended_at, now)], [`${i.gpus}\u00d7 ${i.gpu_name}`, el("div", { class: "sub", text: `machine ${i.machine}` })],
      [perHour(i.price_dollars_per_hour), el("div", { class: "sub", text: i.rental })], dollars(i.spend_dollars, 3), i.destroyed_because ?? "it was gone",
    ]));
    goneBox.hidden = page.ended.length === 0;
    set(events, page.events.length > 0 ? page.events.map((event) => eventLine({ ...event, replica: null }, now)) : el("li", { class: "soft", text: "Nothing happened yet." }));
  }

  function showWhy(answer) {
    const open = new Set([...why.querySelectorAll("details[open]")].map((node) => node.dataset.id));
    const parts = [];
    const doing = [...answer.dropped.map((a) => actionLine(a, `held back by ${a.limit_text}`)), ...answer.actions.map((a) => actionLine(a, "decided in the last tick"))];
    if (doing.length > 0) parts.push(el("ul", { class: "plain rows panel" }, doing));
    if (answer.reasons) parts.push(reasons(answer.reasons, now));
    if (answer.decisions.length > 0) {
      parts.push(el("h3", { text: "Its last decisions" }));
      parts.push(el("ul", { class: "plain rows panel" }, answer.decisions.map((d) => el("li", {},
        el("span", { class: "when" }, time(d.at, now)),
        el("span", { class: "what" }, d.actions.map((a) => el("div", { text: `${a.text} \u2014 ${a.reason_text}` }))),
        el("a", { href: `#/decisions/${d.tick}`, text: `tick ${d.tick}` })))));
    }
    set(why, parts);
    for (const node of why.querySelectorAll("details")) node.open = open.has(node.dataset.id);
  }

  async function readMarket() {
    marketAt = Date.now();
    try {
      set(market, chartOf(await get(`jobs/${name}/market?hours=${hours.value}`)));
    } catch (error) {
      set(market, el("p", { class: "soft", text: error.message }));
    }
  }

  async function read() {
    if (busy) {
      again = true;
      return;
    }
    busy = true;
    try {
      const [page, reasons] = await Promise.all([get(`jobs/${name}`), get(`jobs/${name}/explain`)]);
      show(page);
      showWhy(reasons);
      if (Date.now() - marketAt > 10_000) await readMarket();
      await log.read();
    } catch (error) {
      if (error.status === 404) set(lead, el("span", { text: error.message }));
      else app.failed(error);
    }
    busy = false;
    if (again) {
      again = false;
      setTimeout(read, 400);
    }
  }

  const node = el("div", {},
    el("p", {}, el("a", { href: "#/", text: "\u2190 all jobs" })),
    el("h1", { text: name }), lead, buttons, trouble, facts,
    el("section", { "aria-labelledby": "market-title" },
      el("div", { class: "head" }, el("h2", { id: "market-title", text: "Market" }), el("label", {}, "Last ", hours)), market),
    el("section", { "aria-labelledby": "instances-title" }, el("h2", { id: "instances-title", text: "Instances" }), held.node, none, goneBox),
    el("section", { "aria-labelledby": "why-title" }, el("h2", { id: "why-title", text: "Why" }), why),
    el("div", { class: "columns" },
      el("section", { "aria-labelledby": "l-title" }, el("h2", { id: "l-title", text: "Limits that bind it" }), limits),
      el("section", { "aria-labelledby": "e-title" }, el("h2", { id: "e-title", text: "What happened" }), events)),
    el("section", { "aria-labelledby": "r-title" }, el("h2", { id: "r-title", text: "Replicas" }), replicas.node),
    log.node);
  return { node, update: read, title: name };
}

/** Why no slot's price is shown. */
const noSlot = (j) => (j.eligible === null ? "not decided yet" : "none suits");

/** How a replica stands with its deadline, by the clock here. */
const dueOf = (due, now) => `deadline: ${due.text.replace(due.deadline, () => clock(due.deadline, now))}`;

/** Why a job got what it got: slots that suit, with every part of their prices, and why others do not. */
export function reasons(r, now) {
  const refused = Object.entries(r.refused).sort((a, b) => b[1] - a[1]);
  const all = r.eligible + refused.reduce((sum, [, number]) => sum + number, 0);
  const words = new Map(r.best_refused.map((one) => [one.reason, one.text]));
  const best = table("The best slots, with every part of their prices", SLOTS);
  const money = (text) => dollars(text, 4);
  keyed(best.body, r.best.slice(0, 5), (c) => `${c.machine}/${c.gpus}/${c.rental}`, () => row(SLOTS, (c) => [
    String(c.machine), `${c.gpus}\u00d7 ${c.gpu_name}`, c.rental, perHour(c.price_dollars_per_hour), money(c.landed.total_dollars_per_gpu_hour),
    ...["compute", "disk", "traffic", "boot", "interruption", "waiting"].map((part) => money(c.landed[`${part}_dollars_per_gpu_hour`])),
  ]));
  return el("div", {},
    r.replicas.length > 0 ? el("ul", { class: "plain rows panel" }, r.replicas.slice(0, 12).map((one) =>
      el("li", {}, el("span", { class: "what" }, el("b", { text: `${one.replica} ` }), one.text,
        one.deadline ? el("div", { class: "sub", text: dueOf(one.deadline, now) }) : null,
        // What is left out is empty.
        (one.recourses ?? []).length === 0 ? null : el("div", { class: "sub", text: `after an outbid: ${one.recourses.map((step) => `${step.step} (${step.text})`).join(", ")}` }))))) : null,
    el("p", { class: "soft", text: `${r.eligible} of ${count(all, "slot")} suit.` }),
    r.best.length > 0 ? best.node : null,
    refused.length === 0 ? null : el("details", { "data-id": `refused-${r.job}` }, el("summary", { text: "Why the others do not" }),
      el("ul", {}, refused.map(([reason, number]) => el("li", { text: `${number}: ${words.get(reason) ?? reason.replaceAll("-", " ")}` }))),
      r.best_refused.length === 0 ? null : [el("h3", { text: "The cheapest of them" }),
        el("ul", {}, r.best_refused.map((one) => el("li", { text: `machine ${one.machine}, ${count(one.gpus, "GPU")}, from ${perHour(one.price_dollars_per_hour)}: ${one.text}` })))]));
}

function chartOf(m) {
  const ms = (at) => Date.parse(at);
  const number = (text) => (text === null ? null : Number(text));
  const first = [m.cheapest[0]?.at, ...m.instances.map((one) => one.from)].filter(Boolean).map(ms);
  const to = ms(m.to);
  // What was not recorded yet takes no room.
  const from = Math.max(ms(m.from), Math.min(to - 60_000, ...first));
  const what = m.models.length > 0 ? m.models.join(", ") : "any model";
  const series = [
    { name: "least floor", kind: "floor", points: m.cheapest.map((p) => [ms(p.at), number(p.floor_dollars_per_hour)]) },
    { name: "least on-demand", kind: "on-demand", points: m.cheapest.map((p) => [ms(p.at), number(p.on_demand_dollars_per_hour)]) },
    { name: "ceiling with disk", kind: "ceiling", points: [[from, Number(m.ceiling_dollars_per_hour)]] },
  ];
  // The newest instance of all, or the one before where that has no bid yet.
  for (const one of m.instances.slice(0, 3)) {
    const points = one.bids.map((b) => [ms(b.at), Number(b.dollars_per_hour)]);
    if (one.to) points.push([ms(one.to), null]);
    series.push({ name: `our ${one.rental === "bid" ? "bid" : "rate"} on ${one.machine}`, kind: "bid", points });
  }
  const newest = m.instances[0];
  if (newest && newest.slot.length > 0) {
    series.push({ name: `floor on ${newest.machine}`, kind: "slot", points: newest.slot.map((p) => [ms(p.at), number(p.floor_dollars_per_hour)]) });
  }
  return lines(series, { from, to, now: m.to, title: `Dollars per hour for ${count(m.gpus, "GPU")} (${what}): what the market asked, and what we paid` });
}

function logView(app, name) {
  const which = el("select", { id: "attempt" });
  const text = el("pre", { class: "log", tabindex: "0", "aria-labelledby": "log-title" });
  const note = el("span", { class: "soft" });
  let chosen = "1";
  which.addEventListener("change", () => {
    chosen = which.value;
    read();
  });
  async function read() {
    if (!app.mayReadLogs()) {
      which.hidden = true;
      text.textContent = "What a job wrote takes the token (Token\u2026).";
      return;
    }
    const answer = await get(`jobs/${name}/logs?attempt=${chosen}&lines=400`);
    const option = (a) => `${a.attempt}: ${a.replica}, instance ${a.instance}${a.is_there ? "" : a.ended_at ? `, gone ${clock(a.ended_at, a.ended_at)}` : ", gone"}${a.has_log ? "" : ", no log"}`;
    set(which, answer.attempts.map((a) => el("option", { value: a.attempt, text: option(a) })));
    which.value = chosen;
    which.hidden = answer.attempts.length === 0;
    const atEnd = text.scrollHeight - text.scrollTop - text.clientHeight < 30;
    const said = answer.lines.length > 0 ? answer.lines.join("\n") : answer.attempts.length === 0 ? "It never ran." : "Nothing that it wrote was read.";
    if (text.textContent !== said) {
      text.textContent = said;
      if (atEnd) text.scrollTop = text.scrollHeight;
    }
    note.textContent = answer.is_cut ? "the last lines; `haggle logs` shows all" : "";
  }
  const node = el("section", { "aria-labelledby": "log-title" },
    el("div", { class: "head" }, el("h2", { id: "log-title", text: "Log" }), note, el("label", {}, "Attempt ", which)), text);
  return { node, read };
}
