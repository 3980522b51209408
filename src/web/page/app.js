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
// How old what is published was when the daemon last said so, in seconds, and when that was.
let heard = { age: 0, at: Date.now() };
let lost = null;
// The daemon refused the token, or wants one: nothing more is asked until one is given.
let locked = false;

/** What views need of the page. */
const app = {
  mayChange: () => Boolean(state?.changes_allowed && hasToken()),
  mayReadLogs: () => !state?.changes_allowed || hasToken(),
  whyNot: () => (state?.changes_allowed ? "Give the token first (Token\u2026)" : "Read only: the configuration names no web.token"),
  act: (one, what) => act(one, what),
  failed: (error) => {
    if (error.name === "AbortError") return;
    if (!refused(error)) say(error.message);
  },
};

// ---------------------------------------------------------------------------------------- telling

/** Says something for a while; for longer where it is not what one would expect. */
function say(text, unexpected = false) {
  const line = el("p", { text });
  said.append(line);
  while (said.childElementCount > 3) said.firstChild.remove();
  setTimeout(() => line.remove(), unexpected ? 30_000 : 8000);
}

function tellTrouble() {
  const lines = [...(lost ? [lost] : []), ...(state?.trouble ?? [])];
  if (state?.spending_forbidden) {
    lines.push(state.live ? "Spending is forbidden, and everything is taken down, until all is resumed."
      : "Spending is forbidden until all is resumed. This daemon runs dry and takes nothing down: `haggle kill` does.");
  }
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
  const age = heard.age + (Date.now() - heard.at) / 1000;
  const old = lost !== null || age > Math.max(90, state.next_tick_within_seconds * 3);
  fresh.classList.toggle("old", old);
  fresh.textContent = `${old ? "old: " : ""}as of ${clock(state.at, new Date().toISOString(), true)}`;
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
  while (wanted && !locked) {
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

/** Whether it was refused for its token: then that is forgotten, and asked for. */
function refused(error) {
  const word = error.word;
  if (!["no-token", "wrong-token", "too-many-failures"].includes(word)) return false;
  const had = hasToken();
  if (had) useToken(null);
  tellHead();
  if (had && state) view.update(state);
  if (word !== "too-many-failures") askForToken(error.message);
  return true;
}

function broken(error) {
  if (error.name === "AbortError") return;
  if (refused(error)) locked = true;
  lost = error.status ? `haggle refuses: ${error.message}` : "haggle does not answer. What is shown may be old; rented machines go on billing.";
  tellTrouble();
  tellFresh();
}

let stream = null;
let listening = false;

async function listen() {
  if (listening) return;
  listening = true;
  let wait = 500;
  while (!document.hidden && !locked) {
    stream = new AbortController();
    try {
      await follow((event) => {
        if (!event) return;
        heard = { age: event.age_seconds, at: Date.now() };
        wait = 500;
        if (event.version !== state?.version || lost !== null) read();
        else tellFresh();
      }, stream.signal);
    } catch (error) {
      broken(error);
    }
    stream = null;
    if (document.hidden || locked) break;
    await new Promise((done) => setTimeout(done, wait));
    wait = Math.min(wait * 2, 10_000);
  }
  listening = false;
}

// A tab that nobody sees holds no connection.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) stream?.abort();
  else listen();
});

// ---------------------------------------------------------------------------------------- asking

// Takes the answer of the dialog that is open; each has its own, so that none is answered by another's end.
let settle = null;

function answered(answer) {
  const done = settle;
  settle = null;
  done?.(answer);
}

// Told late: another may have been opened meanwhile.
dialog.addEventListener("close", () => {
  if (!dialog.open) answered(null);
});

/** A dialog; resolves to what its button stands for, or `null`. */
function ask({ title, body, button, kind = "primary", field = null }) {
  return new Promise((done) => {
    answered(null);
    settle = done;
    const wrong = el("p", { class: "wrong", role: "alert" });
    const input = field ? el("input", { id: "dialog-field", type: field.secret ? "password" : "text", autocomplete: "off", spellcheck: "false" }) : null;
    // What was wrong is said until something else is written.
    input?.addEventListener("input", () => { wrong.textContent = ""; });
    const form = el("form", { on: { submit: (event) => {
      event.preventDefault();
      const given = input ? input.value.trim() : true;
      const why = field?.check?.(given);
      if (why) {
        wrong.textContent = why;
        input.focus();
        return;
      }
      answered(given);
      dialog.close();
    } } },
    el("h2", { id: "dialog-title", text: title }),
    body.map((text) => el("p", { text })),
    input ? [el("label", { for: "dialog-field", text: field.label }), input, wrong] : null,
    el("div", { class: "acts-row" },
      el("button", { type: "button", text: "Cancel", on: { click: () => {
          answered(null);
          dialog.close();
        } } }),
      el("button", { type: "submit", class: kind, text: button })));
    dialog.replaceChildren(form);
    if (!dialog.open) dialog.showModal();
    // What was shown before had the focus.
    else (input ?? form.querySelector("button")).focus();
  });
}

async function send(path, body) {
  try {
    const answer = await post(path, body);
    say(`${answer.text[0].toUpperCase()}${answer.text.slice(1)}.`, !answer.is_taken_up);
  } catch (error) {
    if (error.status) app.failed(error);
    else say("haggle did not answer: whether it was recorded is not known. Look again, or ask on the command line.", true);
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
  const rented = `${count(held, "instance")}, billed at ${perHour(state.money.burn_dollars_per_hour)} now,`;
  const answer = await ask({
    title: state.live ? "Destroy everything?" : "Forbid spending?",
    body: [
      state.live ? `${rented} will be destroyed with what is on their disks.`
        : `This daemon runs dry and destroys nothing: \u201chaggle kill\u201d on the command line does. ${held > 0 ? `${rented} go on.` : ""}`,
      "Nothing is spent until all is resumed.",
    ],
    button: state.live ? "Destroy everything" : "Forbid spending", kind: "danger",
    field: { label: `Type \u201c${CONFIRM}\u201d`, check: (given) => (given === CONFIRM ? null : `It has to be \u201c${CONFIRM}\u201d.`) },
  });
  if (answer !== null) await send("kill", { confirm: answer });
});

async function resumeAll() {
  const answer = await ask({ title: "Spend again?", body: ["Every job that is paused or stopped is resumed, and spending is allowed again."], button: "Resume all" });
  if (answer !== null) await send("resume-all");
}

async function askForToken(why) {
  // Whatever is asked now comes first; the button asks again.
  if (dialog.open) return;
  const given = await ask({
    title: "Token",
    body: [why, "It is kept in this tab until you close it."],
    button: "Use it",
    field: { label: "The token that web.token names", secret: true, check: (text) => (text.length >= 16 ? null : "It has at least 16 characters.") },
  });
  if (given === null) return;
  useToken(given);
  locked = false;
  tellHead();
  if (state) view.update(state);
  read();
  stream?.abort();
  listen();
}

at("token").addEventListener("click", () => {
  if (!hasToken()) {
    askForToken(locked ? "Reading takes it here." : "Changes take it, and the logs of jobs.");
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
