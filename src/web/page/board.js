// The overview: money, limits, jobs, what was decided and what happened last.

import { bar, clock, count, dollars, el, keyed, perHour, row, set, span, table, time, tone } from "./dom.js";
import { bars } from "./chart.js";
import { get } from "./api.js";

/** Buttons of a job that fit what the user wants of it now. */
export function jobButtons(job, app, small = true) {
  const button = (text, what, kind = "") =>
    el("button", {
      type: "button",
      class: `${small ? "small " : ""}${kind}`,
      "aria-label": `${text.replace("\u2026", "")} ${job.job}`,
      disabled: !app.mayChange(),
      title: app.mayChange() ? null : app.whyNot(),
      "data-act": what,
      on: { click: () => app.act(job, what) },
      text,
    });
  const wish = job.wish;
  const made = [];
  if (isOver(job)) return made;
  if (wish === "run") made.push(button("Pause", "pause"));
  if (wish !== "run" || job.cannot_start) made.push(button("Resume", "resume"));
  if (wish === "run" || wish === "pause") made.push(button("Stop\u2026", "stop"));
  if (wish !== "done" && !small) made.push(button("Done\u2026", "done"));
  return made;
}

/** Whether nothing is left to be done of a job. */
function isOver(job) {
  const done = /^(?:(\d+)\/(\d+) )?finished$/.exec(job.status);
  return done !== null && done[1] === done[2];
}

/** What a job does, in words, with its tone. */
export function stateOf(job, now) {
  const wish = { pause: "pause was asked for", stop: "stop was asked for", done: "done was asked for" }[job.wish];
  const taken = /paused|stopped|done|finished|failed/.test(job.text);
  return [
    el("div", {}, tone(job.tone), job.text),
    wish && !taken ? el("div", { class: "sub", text: wish }) : null,
    deadlineOf(job),
    breachOf(job, now),
  ];
}

/** How a job stands with its deadline. */
export function deadlineOf(job) {
  const due = job.deadline;
  return due ? el("div", { class: "sub" }, due.tone === "good" ? null : tone(due.tone), due.sentence) : null;
}

const SOON = 24 * 3600 * 1000;

/** A limit that a job reaches soon. The credit is told of above all jobs. */
function breachOf(job, now) {
  const at = job.projected_breach_at;
  if (!at || job.projected_breach_limit.includes("credit") || Date.parse(at) - Date.parse(now) > SOON) return null;
  return el("div", { class: "sub", text: `reaches the ${job.projected_breach_limit} at ${clock(at, now)} at the present burn` });
}

/** How far a job is, with a bar where its work is known. */
export function progressOf(job, now) {
  if (job.array) {
    const a = job.array;
    const failed = a.failed > 0 ? `, ${a.failed} failed` : "";
    return [
      el("div", { text: `${a.finished} of ${a.elements}${failed}` }),
      bar(a.finished / a.elements, a.failed > 0 ? "warn" : ""),
      ending(job, now),
    ];
  }
  if (job.work_share !== null) {
    const done = Number(job.work_done_gpu_hours).toFixed(1);
    return [
      el("div", { text: `${Math.floor(job.work_share * 100)} % \u00b7 ${done} of ${Number(job.work_gpu_hours)} GPU-h` }),
      bar(job.work_share),
      ending(job, now),
    ];
  }
  const told = job.replicas.find((replica) => replica.progress !== null);
  const hours = `${Number(job.work_done_gpu_hours).toFixed(1)} GPU-h`;
  return el("div", { text: told && job.replicas.length === 1 ? `says ${told.progress} \u00b7 ${hours}` : hours });
}

function ending(job, now) {
  return job.expected_end_at ? el("div", { class: "sub", text: `about ${clock(job.expected_end_at, now)} at this pace` }) : null;
}

/** What a job spent, of what it may. */
export function spentOf(job) {
  const budget = job.budget_dollars;
  const share = budget && Number(budget) > 0 ? Number(job.spend_dollars) / Number(budget) : null;
  return [
    el("div", { text: budget ? `${dollars(job.spend_dollars)} of ${dollars(budget)}` : dollars(job.spend_dollars) }),
    share === null ? null : bar(share, share >= 1 ? "bad" : share >= 0.85 ? "warn" : ""),
  ];
}

/** How much that is of what on-demand would have cost, in words; at first little was done, and what was paid for
 * coming up is many times that. */
function shareOf(saved, instead) {
  const percent = Math.round((Number(saved) / instead) * 100);
  return percent < -100 ? "more than twice" : `${Math.abs(percent)} % ${percent < 0 ? "over" : "under"}`;
}

/** What a job saved against on-demand. */
export function savedOf(job) {
  const instead = Number(job.on_demand_equivalent_dollars);
  if (instead <= 0) return el("div", { class: "soft", text: "\u2013" });
  return [el("div", { text: dollars(job.saved_dollars) }), el("div", { class: "sub", text: shareOf(job.saved_dollars, instead) })];
}

const JOBS = [
  ["Job", null], ["State", "state wide"], ["Progress", ""], ["Spent", "n"], ["Saved", "n"], ["Now", "n"], ["", "acts wide"],
];

/** Why no action is shown. */
function nothingDone(state) {
  if (state.was_decided) return "The last tick had nothing to do: everything is as it should be.";
  return "Nothing was decided: the account, or what is rented, could not be read.";
}

/** The overview. */
export function board(app) {
  const tiles = el("dl", { class: "tiles" });
  const limits = el("div", { class: "panel" });
  const spend = el("div");
  const jobs = table("Jobs", JOBS);
  const empty = el("p", { class: "panel pad", text: "No jobs. Write a policy with `haggle init policies/train.toml`; it shows here at the next tick." });
  const filter = el("input", { type: "search", id: "filter", placeholder: "Filter jobs", "aria-label": "Filter jobs", autocomplete: "off" });
  const shown = el("span", { class: "soft" });
  const actions = el("ul", { class: "plain rows panel" });
  const news = el("ul", { class: "plain rows panel" });
  let last = null;
  filter.addEventListener("input", () => last && update(last));

  function update(state) {
    last = state;
    set(tiles, moneyTiles(state));
    set(limits, limitLines(state.limits.filter(isPressing), state.at),
      el("p", { class: "soft limit", text: "Limits of single jobs stand with them, and here when they come near." }));
    const word = filter.value.trim().toLowerCase();
    const fits = (job) => `${job.job} ${job.owner ?? ""} ${job.text}`.toLowerCase().includes(word);
    const some = state.jobs.filter(fits);
    keyed(jobs.body, some.map((job) => ({ ...job, may: app.mayChange() })), (job) => job.job, () =>
      row(JOBS, (job) => [
        [el("a", { href: `#/job/${job.job}`, text: job.job }), job.owner ? el("div", { class: "sub", text: job.owner }) : null],
        stateOf(job, last.at), progressOf(job, last.at), spentOf(job), savedOf(job), el("div", { text: perHour(job.burn_dollars_per_hour) }),
        jobButtons(job, app),
      ]));
    jobs.node.hidden = some.length === 0;
    empty.hidden = state.jobs.length > 0;
    filter.hidden = state.jobs.length < 6;
    const left = state.jobs_left_out > 0 ? `, ${state.jobs_left_out} not shown` : "";
    set(shown, word ? `${some.length} of ${count(state.jobs.length, "job")}` : `${count(state.jobs.length, "job")}${left}`);
    const done = state.actions.map((action) => actionLine(action, "decided"));
    const held = state.dropped.map((action) => actionLine(action, `held back by ${action.limit_text}`));
    const told = state.notices.map((notice) => eventLine({ ...notice, at: state.at }, state.at));
    const all = [...held, ...done, ...told];
    set(actions, all.length > 0 ? all : el("li", { class: "soft", text: nothingDone(state) }));
    set(news, state.news.length > 0
      ? state.news.slice(0, 15).map((event) => eventLine(event, state.at))
      : el("li", { class: "soft", text: "Nothing happened yet." }));
  }

  async function spendByDay() {
    try {
      const answer = await get("spend?by=day");
      const rows = answer.rows.slice(-30);
      set(spend, rows.length > 1
        ? [el("h3", { text: "Spent by day" }), bars(rows.map((r) => [r.key.slice(5), Number(r.spend_dollars)]), "Spent by day, dollars")]
        : null);
    } catch {
      // The rest of the page does not need it.
    }
  }
  spendByDay();

  const node = el("div", {},
    el("h1", { class: "hidden", text: "Overview" }),
    el("section", { "aria-label": "Money" }, tiles),
    el("section", { "aria-labelledby": "jobs-title" },
      el("div", { class: "head" }, el("h2", { id: "jobs-title", text: "Jobs" }), shown, filter),
      jobs.node, empty),
    el("div", { class: "columns" },
      el("section", { "aria-labelledby": "limits-title" }, el("h2", { id: "limits-title", text: "Limits" }), limits, spend),
      el("section", { "aria-labelledby": "actions-title" },
        el("h2", { id: "actions-title", text: "The last tick" }), actions,
        el("div", { class: "head" }, el("h2", { text: "What happened" }), el("a", { href: "#/decisions", text: "all decisions and events" })),
        news)));
  return { node, update, title: "Overview" };
}

function tile(name, big, ...sub) {
  return el("div", { class: "tile" }, el("dt", { text: name }), el("dd", { class: "big", text: big }),
    sub.map((one) => (one ? el("dd", { class: "sub" }, one) : null)));
}

function moneyTiles(state) {
  const m = state.money;
  const of = (measure) => state.limits.find((limit) => limit.scope === "account" && limit.measure === measure);
  const share = (limit) => (limit && limit.share !== null ? bar(limit.share, limit.share >= 1 ? "bad" : limit.share >= 0.85 ? "warn" : "") : null);
  const [hour, day, month] = ["hour", "day", "month"].map(of);
  const instead = Number(m.on_demand_equivalent_dollars);
  const saved = instead > 0 ? `${shareOf(m.saved_dollars, instead)} on-demand, ${dollars(m.on_demand_equivalent_dollars)}` : "nothing ran yet";
  const worst = Number(m.worst_dollars_per_hour) > Number(m.burn_dollars_per_hour) ? `up to ${perHour(m.worst_dollars_per_hour)} by itself` : null;
  return [
    tile("Now", perHour(m.burn_dollars_per_hour), hour ? `of at most ${perHour(hour.bound_dollars_per_hour)}` : worst, share(hour)),
    tile("Today", dollars(m.spend_today_dollars), day ? `of ${dollars(day.bound_dollars)}` : "no limit a day", share(day)),
    tile("This month", dollars(m.spend_month_dollars), month ? `of ${dollars(month.bound_dollars)}` : "no limit a month", share(month)),
    tile("Saved", instead > 0 ? dollars(m.saved_dollars) : "\u2013", saved),
    tile("Credit", m.credit_dollars === null ? "unknown" : dollars(m.credit_dollars),
      m.credit_dollars === null ? "it could not be read: nothing is spent" : m.runway_seconds === null ? "nothing is billed now" : `lasts ${span(m.runway_seconds)} at this burn`,
      Number(m.reserved_dollars) > 0 ? `${dollars(m.reserved_dollars)} set aside` : null),
  ];
}

const AMOUNT = {
  hour: (l) => [l.used_dollars_per_hour, l.bound_dollars_per_hour, perHour],
  credit: (l) => [l.left_dollars, null, dollars],
  runway: (l) => [l.runway_seconds, l.runway_seconds_min, span],
  instances: (l) => [l.used_count, l.bound_count, String],
  gpus: (l) => [l.used_count, l.bound_count, String],
};

/** How far a limit is used, in words. */
function usedOf(limit) {
  const [used, bound, say] = (AMOUNT[limit.measure] ?? ((l) => [l.used_dollars, l.bound_dollars, dollars]))(limit);
  const now = used === undefined || used === null ? "unknown" : say(used);
  if (limit.measure === "credit") return `${now} left over the reserve of ${dollars(limit.reserve_dollars)}`;
  if (limit.measure === "runway") return `${now}, at least ${say(bound)}`;
  return `${now} of ${say(bound)}`;
}

/** Whether a limit belongs on the overview. */
function isPressing(limit) {
  const near = limit.projected_breach_at !== null || (limit.share !== null && limit.share >= 0.85);
  return near || !limit.scope.startsWith("job/");
}

/** Limits, one line each. */
export function limitLines(limits, now) {
  if (limits.length === 0) return el("p", { class: "soft limit", text: "No limits yet." });
  return limits.map((limit) => {
    const share = limit.share;
    const at = limit.projected_breach_at;
    const kind = share !== null && share >= 1 ? "bad" : at || (share !== null && share >= 0.85) ? "warn" : "";
    return el("div", { class: "limit" },
      el("div", { class: "line" }, el("span", { text: limit.text }), el("span", { text: usedOf(limit) })),
      share === null ? null : bar(share, kind),
      at ? el("div", { class: "soft", text: new Date(at) <= new Date(now) ? "reached" : `reached at ${clock(at, now)} at the present burn` }) : null);
  });
}

/** Something that was decided. */
export function actionLine(action, how) {
  return el("li", {},
    el("span", { class: "what" },
      action.replica ? el("b", {}, el("a", { href: `#/job/${action.replica.split("/")[0]}`, text: action.replica }), " ") : null,
      action.text, el("span", { class: "soft", text: ` \u2014 ${action.reason_text}${how ? `; ${how}` : ""}` })),
    Number(action.reserve_dollars) > 0 ? el("span", { class: "soft", text: `reserves ${dollars(action.reserve_dollars)}` }) : null);
}

/** Something that happened. */
export function eventLine(event, now) {
  const job = event.replica ? event.replica.split("/")[0] : null;
  return el("li", { class: `sev-${event.severity}` },
    el("span", { class: "when" }, time(event.at, now)),
    el("span", { class: "what" },
      event.severity === "info" ? null : el("b", { text: `${event.severity}: ` }),
      event.text, job ? el("span", { class: "soft" }, " ", el("a", { href: `#/job/${job}`, text: event.replica })) : null));
}
