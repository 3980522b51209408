// Instances, decisions and events, policies.

import { get } from "./api.js";
import { actionLine, eventLine, limitLines } from "./board.js";
import { count, dollars, el, keyed, perHour, row, set, table, time, tone } from "./dom.js";
import { reasons } from "./job.js";

/** Columns of instances. */
export const INSTANCES = [
  ["Instance", null], ["State", "state"], ["Replica", ""], ["GPUs", ""], ["Price", "n"], ["Now", "n"], ["Cost", "n"], ["Reach it", "wide"],
];

/** Cells of an instance. */
export function instanceCells(i, now) {
  return [
    [String(i.instance), el("div", { class: "sub", text: `machine ${i.machine}` })],
    [el("div", {}, tone(i.tone), i.status, " since ", time(i.since, now)),
      i.destroyed_because ? el("div", { class: "sub", text: `being destroyed: ${i.destroyed_because}` }) : null],
    el("a", { href: `#/job/${i.replica.split("/")[0]}`, text: i.replica }),
    `${i.gpus}\u00d7 ${i.gpu_name}`,
    [el("div", { text: perHour(i.price_dollars_per_hour) }), el("div", { class: "sub", text: i.rental })],
    el("div", { text: perHour(i.burn_dollars_per_hour) }),
    [el("div", { text: dollars(i.spend_dollars, 3) }), el("div", { class: "sub", text: `billed ${dollars(i.billed_dollars, 3)}` })],
    i.ssh_command ? el("code", { text: i.ssh_command }) : "",
  ];
}

/** The view of instances. */
export function instances() {
  const all = table("Instances", INSTANCES);
  const none = el("p", { class: "panel pad", text: "Nothing is rented." });
  const shown = el("span", { class: "soft" });
  const filter = el("input", { type: "search", placeholder: "Filter instances", "aria-label": "Filter instances", autocomplete: "off" });
  let last = null;
  filter.addEventListener("input", () => last && update(last));
  function update(state) {
    last = state;
    const word = filter.value.trim().toLowerCase();
    const fits = (i) => `${i.instance} ${i.machine} ${i.replica} ${i.status} ${i.gpu_name} ${i.rental}`.toLowerCase().includes(word);
    const some = state.instances.filter(fits);
    keyed(all.body, some, (i) => i.instance, () => row(INSTANCES, (i) => instanceCells(i, last.at)));
    all.node.hidden = some.length === 0;
    none.hidden = state.instances.length > 0;
    filter.hidden = state.instances.length < 6;
    const left = state.instances_left_out > 0 ? `, ${state.instances_left_out} not shown` : "";
    set(shown, word ? `${some.length} of ${count(state.instances.length, "instance")}` : `${count(state.instances.length, "instance")}${left}, ${perHour(state.money.burn_dollars_per_hour)} together`);
  }
  const node = el("div", {}, el("h1", { text: "Instances" }), el("div", { class: "head" }, shown, filter), all.node, none);
  return { node, update, title: "Instances" };
}

/** The view of decisions and events. */
export function decisions(app) {
  const done = el("ul", { class: "plain rows panel" });
  const happened = el("ul", { class: "plain rows panel" });
  const older = el("button", { type: "button", text: "Older decisions" });
  const earlier = el("button", { type: "button", text: "Older events" });
  const job = el("select", { id: "of-job" });
  let [moreDone, moreHappened, now] = [null, null, null];
  let deep = false;

  const decision = (d) => el("li", {},
    el("span", { class: "when" }, time(d.at, now)),
    el("span", { class: "what" }, d.actions.map((a) => el("div", {},
      a.replica ? el("b", { text: `${a.replica} ` }) : null, a.text, el("span", { class: "soft", text: ` \u2014 ${a.reason_text}` })))),
    el("a", { href: `#/decisions/${d.tick}`, text: "explain", "aria-label": `Explain the decision of tick ${d.tick}` }));

  const of = () => (job.value ? `&job=${encodeURIComponent(job.value)}` : "");

  async function read() {
    try {
      const [a, b] = await Promise.all([get(`decisions?limit=30${of()}`), get(`story?limit=50${of()}`)]);
      [moreDone, moreHappened] = [a.next_before, b.next_before];
      set(done, a.decisions.length > 0 ? a.decisions.map(decision) : el("li", { class: "soft", text: "Nothing was decided yet." }));
      set(happened, b.events.length > 0 ? b.events.map((event) => eventLine(event, now)) : el("li", { class: "soft", text: "Nothing happened yet." }));
      buttons();
    } catch (error) {
      app.failed(error);
    }
  }

  function buttons() {
    older.hidden = moreDone === null;
    earlier.hidden = moreHappened === null;
  }

  async function more(path, list, make, before) {
    deep = true;
    const answer = await get(`${path}?limit=50&before=${before}${of()}`);
    const rows = answer.decisions ?? answer.events;
    list.append(...rows.map(make));
    return answer.next_before;
  }

  older.addEventListener("click", async () => {
    moreDone = await more("decisions", done, decision, moreDone).catch(app.failed) ?? null;
    buttons();
  });
  earlier.addEventListener("click", async () => {
    moreHappened = await more("story", happened, (event) => eventLine(event, now), moreHappened).catch(app.failed) ?? null;
    buttons();
  });
  job.addEventListener("change", () => {
    deep = false;
    read();
  });

  function update(state) {
    now = state.at;
    const value = job.value;
    set(job, el("option", { value: "", text: "all jobs" }), state.jobs.map((one) => el("option", { value: one.job, text: one.job })));
    job.value = value;
    // Whoever reads what is old is not sent back to the beginning.
    if (!deep) read();
  }

  const node = el("div", {},
    el("h1", { text: "Decisions" }),
    el("div", { class: "head" }, el("p", { class: "soft", text: "What each tick decided to do, and what happened. Quiet ticks are left out." }), el("label", {}, "Of ", job)),
    el("div", { class: "columns" },
      el("section", { "aria-labelledby": "d-title" }, el("h2", { id: "d-title", text: "Decided" }), done, el("div", { class: "pages" }, older)),
      el("section", { "aria-labelledby": "h-title" }, el("h2", { id: "h-title", text: "Happened" }), happened, el("div", { class: "pages" }, earlier))));
  return { node, update, title: "Decisions" };
}

/** The view of one decision, with every reason. */
export function decision(app, tick) {
  const body = el("div", {}, el("p", { class: "soft", text: "Deciding again\u2026" }));
  let asked = false;
  async function update() {
    if (asked) return;
    asked = true;
    try {
      const page = await get(`decisions/${tick}`);
      const at = page.decided.at;
      const again = page.again;
      set(body,
        el("p", { class: "soft" }, "Decided at ", time(at, null), again
          ? ". What follows was made again from what was known then, by the same rules."
          : `. It cannot be made again: ${page.not_again}.`),
        el("h2", { text: "Done" }),
        el("ul", { class: "plain rows panel" }, page.decided.actions.map((a) => actionLine(a, ""))),
        again ? [
          again.dropped.length > 0 ? [el("h2", { text: "Held back" }),
            el("ul", { class: "plain rows panel" }, again.dropped.map((a) => actionLine(a, `held back by ${a.limit_text}`)))] : null,
          el("h2", { text: "Why, job by job" }),
          again.jobs.map((one) => el("section", { "aria-label": one.job }, el("h3", {}, el("a", { href: `#/job/${one.job}`, text: one.job })), reasons(one))),
          el("h2", { text: "Limits then" }),
          el("div", { class: "panel" }, limitLines(again.limits.map((l) => ({ ...l, share: null, text: l.limit.replaceAll("-", " ") + (l.scope === "account" ? "" : ` of ${l.scope}`) })), at)),
        ] : null);
    } catch (error) {
      set(body, el("p", { text: error.message }));
      if (error.status !== 404) app.failed(error);
    }
  }
  const node = el("div", {}, el("p", {}, el("a", { href: "#/decisions", text: "\u2190 all decisions" })), el("h1", { text: `Tick ${tick}` }), body);
  return { node, update, title: `Tick ${tick}` };
}

const POLICIES = [["Job", null], ["GPUs", ""], ["Rental", ""], ["Ceiling", "n"], ["Budget", "n"], ["Replicas", "n"], ["Priority", "n"], ["For", ""], ["File", "wide"]];

/** The view of policies. */
export function policies(app) {
  const all = table("Policies that can be used", POLICIES);
  const wrong = el("div");
  const where = el("p", { class: "soft" });
  async function update() {
    try {
      const answer = await get("policies");
      set(where, answer.directory ? ["In ", el("code", { text: answer.directory }), ". Edits are taken up at the next tick."] : "They are part of the demo.");
      set(wrong, answer.mistakes.length === 0 ? el("p", { class: "soft", text: "No mistakes." }) : [
        el("h2", { text: count(answer.mistakes.length, "mistake") }),
        el("p", { class: "soft", text: "A job whose policy cannot be used is left as it is: nothing is begun for it, and what runs goes on." }),
        el("ul", { class: "plain rows panel" }, answer.mistakes.map((m) => el("li", { class: "sev-alarm" }, el("span", { class: "what" },
          el("code", { text: `${m.file}:${m.line}:${m.column}` }), " ", el("b", { text: m.message }),
          m.help ? el("div", { class: "soft", text: m.help }) : null)))),
      ]);
      keyed(all.body, answer.policies, (p) => p.job, () => row(POLICIES, (p) => [
        el("a", { href: `#/job/${p.job}`, text: p.job }),
        `${p.gpus}\u00d7 ${p.gpu_models.length > 0 ? p.gpu_models.join(" or ") : "any"}`, p.rental, `${dollars(p.price_max_dollars_per_gpu_hour, 4)}/GPU-h`,
        p.budget_dollars === null ? "none" : dollars(p.budget_dollars), String(p.replicas), String(p.priority),
        [p.owner ?? "", p.tags.length > 0 ? el("div", { class: "sub", text: p.tags.join(", ") }) : null],
        p.file ? el("code", { text: p.file }) : "",
      ]));
      all.node.hidden = answer.policies.length === 0;
    } catch (error) {
      app.failed(error);
    }
  }
  const node = el("div", {}, el("h1", { text: "Policies" }), where, wrong, all.node);
  return { node, update, title: "Policies" };
}
