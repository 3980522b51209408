// Puts the page together: which view is shown, what is followed, and what is asked for.

import { follow, get, hasToken, post, useToken } from "./api.js";
import { board } from "./board.js";
import { count, clock, el, perHour, set, useZone } from "./dom.js";
import { job } from "./job.js";
import { decision, decisions, instances, policies } from "./lists.js";

const at = (id) => document.getElementById(id);
const [main, said, trouble, fresh, dialog] = ["main", "said", "trouble", "fresh", "dialog"].map(at);

let state = null;
let view = null;
let heardAt = 0;
let lost = null;

/** What views need of the page. */
const app = {
  mayChange: () => Boolean(state?.changes_allowed && hasToken()),
  whyNot: () => (state?.changes_allowed ? "Give the token first (Token\u2026)" : "Read only: the configuration names no web.token"),
  act: (one, what) => act(one, what),
  failed: (error) => {
    if (error.name === "AbortError") return;
    if (error.status === 401 || error.status === 403) askForToken(error.message);
    else say(error.message);
  },
};

// ---------------------------------------------------------------------------------------- telling

function say(text) {
  const line = el("p", { text });
  said.append(line);
  while (said.childElementCount > 3) said.firstChild.remove();
  setTimeout(() => line.remove(), 8000);
}

function tellTrouble() {
  const lines = [...(lost ? [lost] : []), ...(state?.trouble ?? [])];
  if (state?.spending_forbidden) lines.push("Spending is forbidden, and everything is taken down, until all is resumed.");
  set(trouble, lines.map((line) => el("p", { text: line })),
    state?.spending_forbidden && app.mayChange() ? el("button", { type: "button", class: "small", text: "Resume all\u2026", "data-act": "resume-all", on: { click: resumeAll } }) : null);
  trouble.hidden = lines.length === 0;
}

function tellHead() {
  const mode = at("mode");
  const [kind, text] = !state ? ["", "\u2026"] : state.spending_forbidden ? ["killed", "spending forbidden"] : state.live ? ["live", "live"] : ["dry", "dry run: nothing is rented"];
  mode.className = `badge ${kind}`;
  mode.textContent = text;
  at("kill").disabled = !app.mayChange();
  at("kill").title = app.mayChange() ? "" : app.whyNot();
  at("token").textContent = hasToken() ? "Forget token" : "Token\u2026";
  at("token").hidden = Boolean(state) && !state.changes_allowed && !hasToken();
  if (state) {
    set(at("about"), `haggle ${state.haggle}, installation ${state.installation}${state.account === null ? "" : `, account ${state.account}`}. Times in ${state.timezone}.`);
  }
}

function tellFresh() {
  if (!state) return;
  const silent = (Date.now() - heardAt) / 1000;
  const old = lost !== null || silent > Math.max(90, state.next_tick_within_seconds * 3);
  fresh.classList.toggle("old", old);
  fresh.textContent = `${old ? "last heard" : "as of"} ${clock(state.at, state.at, true)}`;
}

// ---------------------------------------------------------------------------------------- views

const VIEWS = [
  [/^#\/job\/([a-z0-9-]+)$/, (name) => job(app, name), ""],
  [/^#\/instances$/, () => instances(), "instances"],
  [/^#\/decisions\/(\d+)$/, (tick) => decision(app, tick), "decisions"],
  [/^#\/decisions$/, () => decisions(app), "decisions"],
  [/^#\/policies$/, () => policies(app), "policies"],
];

function open(focus) {
  const found = VIEWS.map(([form, make, word]) => [form.exec(location.hash), make, word]).find(([match]) => match);
  const word = found ? found[2] : "board";
  view = found ? found[1](found[0][1]) : board(app);
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === word) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${view.title} \u2013 haggle`;
  main.replaceChildren(view.node);
  if (state) view.update(state);
  if (focus) {
    main.focus({ preventScroll: true });
    scrollTo(0, 0);
  }
}

function show(next) {
  state = next;
  lost = null;
  useZone(state.timezone);
  tellHead();
  tellTrouble();
  tellFresh();
  view.update(state);
}

// ---------------------------------------------------------------------------------------- following

let reading = false;
let wanted = false;

/** Reads what was published; one read at a time, and the newest last. */
async function read() {
  wanted = true;
  if (reading) return;
  reading = true;
  while (wanted) {
    wanted = false;
    try {
      show(await get("state"));
    } catch (error) {
      broken(error);
    }
    // Ticks of a market that runs fast come faster than anybody reads.
    await new Promise((done) => setTimeout(done, 150));
  }
  reading = false;
}

function broken(error) {
  if (error.name === "AbortError") return;
  if (error.status === 401 || error.status === 403) askForToken(error.message);
  lost = error.status ? `haggle refuses: ${error.message}` : "haggle does not answer. What is shown may be old; rented machines go on billing.";
  tellTrouble();
  tellFresh();
}

let stream = null;

async function listen() {
  let wait = 500;
  while (!document.hidden) {
    stream = new AbortController();
    try {
      await follow((event) => {
        heardAt = Date.now();
        wait = 500;
        if (event) read();
        else tellFresh();
      }, stream.signal);
    } catch (error) {
      broken(error);
    }
    stream = null;
    if (document.hidden) break;
    await new Promise((done) => setTimeout(done, wait));
    wait = Math.min(wait * 2, 10_000);
  }
}

// A tab that nobody sees holds no connection.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) stream?.abort();
  else if (!stream) listen();
});

// ---------------------------------------------------------------------------------------- asking

/** A dialog; resolves to what its button stands for, or `null`. */
function ask({ title, body, button, kind = "primary", field = null }) {
  return new Promise((done) => {
    const wrong = el("p", { class: "wrong", role: "alert" });
    const input = field ? el("input", { id: "dialog-field", type: field.secret ? "password" : "text", autocomplete: "off", spellcheck: "false" }) : null;
    let answer = null;
    const form = el("form", { on: { submit: (event) => {
      event.preventDefault();
      const given = input ? input.value.trim() : true;
      const why = field?.check?.(given);
      if (why) {
        wrong.textContent = why;
        input.focus();
        return;
      }
      answer = given;
      dialog.close();
    } } },
    el("h2", { id: "dialog-title", text: title }),
    body.map((text) => el("p", { text })),
    input ? [el("label", { for: "dialog-field", text: field.label }), input, wrong] : null,
    el("div", { class: "acts-row" },
      el("button", { type: "button", text: "Cancel", on: { click: () => dialog.close() } }),
      el("button", { type: "submit", class: kind, text: button })));
    dialog.replaceChildren(form);
    dialog.addEventListener("close", () => done(answer), { once: true });
    if (dialog.open) dialog.close();
    dialog.showModal();
  });
}

async function send(path, body) {
  try {
    const answer = await post(path, body);
    say(`${answer.text[0].toUpperCase()}${answer.text.slice(1)}, at the daemon's next look (within seconds).`);
  } catch (error) {
    if (error.word === "wrong-token") useToken(null);
    app.failed(error);
    tellHead();
  }
}

const SURE = {
  stop: (one) => ({
    title: `Stop ${one.job}?`,
    body: ["Its instances are destroyed, with what is on their disks. Resume begins it again."],
    button: "Stop it", kind: "danger",
  }),
  done: (one) => ({
    title: `End ${one.job} for good?`,
    body: ["Its instances are destroyed, with what is on their disks, and it counts as done."],
    button: "End it", kind: "danger",
  }),
};

async function act(one, what) {
  const sure = SURE[what]?.(one);
  if (sure && (await ask(sure)) === null) return;
  await send(`jobs/${one.job}/${what}`);
}

const CONFIRM = "destroy everything";

at("kill").addEventListener("click", async () => {
  const held = state.instances.length + state.instances_left_out;
  const answer = await ask({
    title: "Destroy everything?",
    body: [
      `${count(held, "instance")}, billed at ${perHour(state.money.burn_dollars_per_hour)} now, will be destroyed with what is on their disks.`,
      "Nothing is spent until all is resumed.",
    ],
    button: "Destroy everything", kind: "danger",
    field: { label: `Type \u201c${CONFIRM}\u201d`, check: (given) => (given === CONFIRM ? null : `It has to be \u201c${CONFIRM}\u201d.`) },
  });
  if (answer !== null) await send("kill", { confirm: answer });
});

async function resumeAll() {
  const answer = await ask({ title: "Spend again?", body: ["Every job that is paused or stopped is resumed, and spending is allowed again."], button: "Resume all" });
  if (answer !== null) await send("resume-all");
}

let asking = false;

async function askForToken(why) {
  if (asking) return;
  asking = true;
  const given = await ask({
    title: "Token",
    body: [why, "It is kept in this tab until you close it."],
    button: "Use it",
    field: { label: "The token that web.token names", secret: true, check: (text) => (text.length >= 16 ? null : "It has at least 16 characters.") },
  });
  asking = false;
  if (given === null) return;
  useToken(given);
  tellHead();
  if (state) view.update(state);
  read();
  stream?.abort();
}

at("token").addEventListener("click", () => {
  if (!hasToken()) {
    askForToken("Changes take it.");
    return;
  }
  useToken(null);
  tellHead();
  if (state) view.update(state);
});

at("skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});

addEventListener("hashchange", () => open(true));
setInterval(tellFresh, 5000);
tellHead();
open(false);
read();
listen();
