// The page in a real Chromium: every view, a live update, every button, accessibility, many rows, hostile
// words, a failing daemon. Fails with the first thing that is not as it should be.

import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { gzipSync } from "node:zlib";
import { join } from "node:path";
import { chromium } from "playwright-core";
import { start, until, TOKEN } from "./daemon.mjs";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const SHOTS = process.env.PAGE_SHOTS;
if (SHOTS) mkdirSync(SHOTS, { recursive: true });

// Files of the page as they are on disk, so that they can be tried without a build.
const FROM = process.env.PAGE_FROM;
const KINDS = { html: "text/html", css: "text/css", js: "text/javascript", svg: "image/svg+xml" };

async function fromDisk(route) {
  const served = await route.fetch();
  const name = new URL(route.request().url()).pathname.replace(/^\/(page\/)?/, "") || "index.html";
  const headers = { ...served.headers(), "content-type": KINDS[name.split(".").pop()] };
  delete headers["content-encoding"];
  delete headers["content-length"];
  return route.fulfill({ headers, body: readFileSync(join(FROM, name)) });
}

const daemon = await start();
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ["--no-sandbox"] });
const problems = [];
const told = (text) => console.log(text);

async function newPage({ dark = false, phone = false, token = false, expectErrors = false } = {}) {
  const context = await browser.newContext({
    colorScheme: dark ? "dark" : "light",
    viewport: phone ? { width: 375, height: 812 } : { width: 1280, height: 860 },
    hasTouch: phone,
  });
  // A machine that does much else is slow, not wrong.
  context.setDefaultTimeout(90_000);
  if (token) await context.addInitScript((value) => {
    if (location.protocol !== "about:") sessionStorage.setItem("haggle-token", value);
  }, TOKEN);
  if (FROM) await context.route((url) => url.pathname === "/" || url.pathname.startsWith("/page/"), fromDisk);
  const page = await context.newPage();
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type()) && !expectErrors) problems.push(`console: ${message.text()}`);
  });
  page.on("pageerror", (error) => problems.push(`page: ${error.message}`));
  page.on("request", (request) => {
    if (!request.url().startsWith(daemon.base) && request.url() !== "about:blank") problems.push(`asked elsewhere: ${request.url()}`);
  });
  return page;
}

async function settled(page) {
  await page.waitForFunction(() => /as of/.test(document.getElementById("fresh").textContent));
  await page.waitForLoadState("load");
  await until("the view is filled", () => page.evaluate(() => !/Reading…|Deciding again/.test(document.getElementById("main").textContent)));
  // What a view asks for beside the state.
  await page.waitForTimeout(400);
}

/** No violation of what axe knows, nothing wider than the screen, and a picture. */
async function look(page, name) {
  await page.evaluate(AXE);
  const found = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
  const violations = found.violations.map((one) => `${one.id}: ${one.nodes.map((node) => node.html).slice(0, 3).join(" | ")}`);
  assert.deepEqual(violations, [], `${name}: axe`);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.ok(wide <= 0, `${name} is ${wide} pixels wider than the screen`);
  if (SHOTS) await page.screenshot({ path: join(SHOTS, `${name}.png`), fullPage: true });
}

async function state() {
  return (await fetch(`${daemon.base}/api/v1/state`)).json();
}

async function everyView() {
  const job = "finetune";
  await until("something runs", async () => (await state()).jobs.some((one) => one.tone === "good"), 120);
  await until("the deadline is reckoned with", async () => (await state()).jobs.find((one) => one.job === "by-then")?.deadline, 120);
  const { decisions } = await (await fetch(`${daemon.base}/api/v1/decisions`)).json();
  const views = { board: "", job: `#/job/${job}`, deadline: "#/job/by-then", instances: "#/instances", decisions: "#/decisions", decision: `#/decisions/${decisions[0].tick}`, policies: "#/policies", nobody: "#/job/nobody" };
  for (const [how, options] of Object.entries({ light: {}, dark: { dark: true }, phone: { phone: true }, "phone-dark": { phone: true, dark: true } })) {
    for (const [name, path] of Object.entries(views)) {
      const page = await newPage({ ...options, token: how !== "phone", expectErrors: name === "nobody" });
      await page.goto(`${daemon.base}/${path}`);
      await settled(page);
      await look(page, `${name}-${how}`);
      await page.context().close();
    }
  }
  const page = await newPage();
  await page.goto(`${daemon.base}/#/policies`);
  await settled(page);
  await page.waitForSelector("text=<img src=x onerror=pwned=1>.toml");
  assert.equal(await page.evaluate(() => globalThis.pwned), undefined);
  await page.goto(`${daemon.base}/#/job/${job}`);
  await page.waitForSelector("svg.chart .line.bid", { state: "attached" });
  await page.waitForSelector("text=/bid of \\$|on-demand at|coming up|outbid/");
  for (const path of ["", "#/job/by-then"]) {
    await page.goto(`${daemon.base}/${path}`);
    await page.waitForSelector("text=/due .*\\d\\d:\\d\\d, .* to spare: it (takes|waits)/");
  }
  await page.waitForSelector("text=/deadline: (\\d+ \\w+ )?\\d\\d:\\d\\d, in .*on-demand it needs/");
  await page.context().close();
  told("every view, light, dark and at phone width: no violation, nothing too wide");
}

/** From an event on a stream of our own to the page that shows what it announced. */
async function liveUpdate() {
  const page = await newPage();
  await page.goto(daemon.base);
  await settled(page);
  await page.evaluate(() => {
    globalThis.seen = [];
    new MutationObserver(() => globalThis.seen.push([Date.now(), document.getElementById("fresh").textContent]))
      .observe(document.getElementById("fresh"), { childList: true, characterData: true, subtree: true });
  });
  const events = [];
  const stop = new AbortController();
  const reading = (async () => {
    const answer = await fetch(`${daemon.base}/api/v1/events`, { signal: stop.signal });
    for await (const chunk of answer.body) if (/data:/.test(Buffer.from(chunk).toString())) events.push(Date.now());
  })().catch(() => {});
  await until("three updates", () => events.length >= 4, 90);
  await page.waitForTimeout(600);
  stop.abort();
  await reading;
  const seen = await page.evaluate(() => globalThis.seen.map(([at]) => at));
  // The first event is at once; those after it are publications.
  const delays = events.slice(1, 4).map((at) => Math.min(...seen.filter((one) => one >= at - 5).map((one) => one - at)));
  const worst = Math.max(...delays);
  assert.ok(worst < 250, `a live update took ${delays} ms`);
  await page.context().close();
  told(`live updates were shown after ${delays.map((one) => Math.max(0, one)).join(", ")} ms`);
}

async function everyButton() {
  const page = await newPage();
  await page.goto(daemon.base);
  await settled(page);
  const row = (job) => page.locator("main tbody tr", { has: page.getByRole("link", { name: job, exact: true }) });
  assert.ok(await row("finetune").getByRole("button", { name: "Pause finetune" }).isDisabled(), "read only without the token");
  assert.ok(await page.locator("#kill").isDisabled());
  await page.getByRole("button", { name: "Token…" }).click();
  await page.getByLabel("The token that web.token names").fill("short");
  await page.getByRole("button", { name: "Use it" }).click();
  await page.waitForSelector("text=It has at least 16 characters.");
  await look(page, "token-dialog");
  await page.keyboard.press("Escape");
  await page.getByRole("button", { name: "Token…" }).click();
  await page.getByLabel("The token that web.token names").fill(TOKEN);
  await page.keyboard.press("Enter");
  await page.getByRole("button", { name: "Forget token" }).waitFor();

  const says = async (job, pattern) => until(`${job} is ${pattern}`, async () => pattern.test(await row(job).textContent()), 90);
  const taken = page.locator("#said", { hasText: "at the daemon's next look" });
  await row("inference").getByRole("button", { name: "Pause inference" }).click();
  await taken.first().waitFor();
  await says("inference", /paused by you/);
  await row("inference").getByRole("button", { name: "Resume inference" }).click();
  await until("inference is resumed", async () => (await state()).jobs.find((one) => one.job === "inference").wish === "run", 90);
  await says("inference", /^(?!.*paused by you)/);
  await row("inference").getByRole("button", { name: "Stop inference" }).click();
  await look(page, "stop-dialog");
  await page.getByRole("button", { name: "Cancel" }).click();
  assert.equal((await state()).jobs.find((one) => one.job === "inference").wish, "run");
  await row("inference").getByRole("button", { name: "Stop inference" }).click();
  await page.getByRole("button", { name: "Stop it" }).click();
  await says("inference", /stopped by you/);
  await page.goto(`${daemon.base}/#/job/overnight`);
  await page.getByRole("button", { name: "Done overnight" }).click();
  await page.getByRole("button", { name: "End it" }).click();
  await until("overnight is done", async () => (await state()).jobs.find((one) => one.job === "overnight").wish === "done", 60);
  await page.goto(`${daemon.base}/#/`);
  await page.locator("#kill").click();
  await page.getByLabel("Type").fill("destroy nothing");
  await page.keyboard.press("Enter");
  await page.waitForSelector("text=It has to be");
  assert.equal((await state()).spending_forbidden, false);
  await page.getByLabel("Type").fill("destroy everything");
  assert.equal(await page.locator("#dialog .wrong").textContent(), "");
  await look(page, "kill-dialog");
  await page.getByRole("button", { name: "Destroy everything" }).click();
  await page.locator("#mode", { hasText: "spending forbidden" }).waitFor({ timeout: 60000 });
  await until("everything is destroyed", async () => (await state()).instances.length === 0, 120);
  await page.waitForTimeout(500);
  await look(page, "killed");
  await page.getByRole("button", { name: "Resume all…" }).click();
  await page.getByRole("button", { name: "Resume all", exact: true }).click();
  await page.locator("#mode", { hasText: "live" }).waitFor({ timeout: 60000 });
  await page.getByRole("button", { name: "Forget token" }).click();
  assert.ok(await page.locator("#kill").isDisabled());
  await page.context().close();
  told("every button does what it says, and asks first where something is destroyed");
}

async function keyboard() {
  const page = await newPage({ token: true });
  await page.goto(daemon.base);
  await settled(page);
  const focused = () => page.evaluate(() => document.activeElement.id || document.activeElement.textContent);
  await page.keyboard.press("Tab");
  assert.equal(await focused(), "skip");
  await page.keyboard.press("Enter");
  assert.equal(await focused(), "main");
  await page.keyboard.press("Tab");
  const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
  assert.notEqual(outline, "none", "what has the focus is seen");
  await page.locator("nav a", { hasText: "Instances" }).focus();
  await page.keyboard.press("Enter");
  await page.waitForSelector("h1:text('Instances')");
  assert.equal(await focused(), "main", "a new view has the focus");
  assert.equal(await page.title(), "Instances – haggle");
  await page.locator("#kill").focus();
  await page.keyboard.press("Enter");
  assert.equal(await focused(), "dialog-field");
  for (let times = 0; times < 6; times += 1) {
    await page.keyboard.press("Tab");
    assert.ok(await page.evaluate(() => document.activeElement === document.body || document.getElementById("dialog").contains(document.activeElement)), "a dialog keeps the focus");
  }
  await page.keyboard.press("Escape");
  assert.equal(await focused(), "kill", "and gives it back");
  // What has the focus keeps it while the page is renewed under it.
  await page.goto(`${daemon.base}/#/`);
  const link = page.getByRole("link", { name: "finetune", exact: true });
  await link.focus();
  const before = (await state()).version;
  await until("two ticks", async () => (await state()).version >= before + 2, 90);
  await page.waitForTimeout(400);
  assert.equal(await focused(), "finetune");
  await page.context().close();
  told("all of it by keyboard");
}

/** The state as it would be with so many jobs and instances, of what there is. */
function many(one, jobs, instances) {
  const job = one.jobs[0];
  const held = one.instances[0] ?? { instance: 1, replica: "a/0", status: "running", tone: "good", since: one.at, machine: 7, gpus: 1, gpu_name: "RTX 4090", rental: "bid", price_dollars_per_hour: "0.3", storage_dollars_per_hour: "0.01", burn_dollars_per_hour: "0.31", spend_dollars: "1.20", billed_dollars: "1.10", ssh: null, ssh_command: "ssh -p 40158 root@198.51.100.57", created_at: one.at, ends_at: null };
  const deadline = one.jobs.find((known) => known.deadline)?.deadline;
  const dues = [null, { ...deadline, tone: "good", sentence: "due Sat 18:00, 3h10m to spare: it takes what is cheapest" }, null, { ...deadline, tone: "bad", sentence: "due 18:00, 20m00s too little: it takes what nobody takes away" }];
  const tones = ["good", "good", "good", "warn", "wait", "bad", "rest"];
  const texts = {
    good: "running on machine 4821 (1\u00d7 RTX 4090) at a bid of $0.2140/h since 13:05",
    warn: "paused: outbid on machine 4821, waiting until 14:20, then reclaiming or moving",
    wait: "coming up on machine 4821, given up at 14:20",
    bad: "cannot start: the registry knows no such image (\u201cmanifest unknown\u201d); waits for a change of its policy, or Resume",
    rest: "paused by you",
  };
  return {
    ...one,
    jobs: Array.from({ length: jobs }, (_, n) => {
      const tone = tones[n % tones.length];
      return { ...job, job: `train-${n}`, deadline: dues[n % dues.length], owner: n % 3 ? "research" : null, tone, text: texts[tone], wish: tone === "rest" ? "pause" : "run", status: "running", work_share: (n % 100) / 100, work_gpu_hours: "40", work_done_gpu_hours: String((n % 100) * 0.4), budget_dollars: "20", spend_dollars: String(n % 21), on_demand_equivalent_dollars: String((n % 21) * 2.4), saved_dollars: String((n % 21) * 1.4), array: null };
    }),
    instances: Array.from({ length: instances }, (_, n) => ({ ...held, instance: 31000000 + n, machine: 1000 + n, replica: `train-${n % jobs}/0` })),
  };
}

async function manyRows() {
  const page = await newPage({ token: true });
  let version = 1;
  const one = await state();
  const body = many(one, 100, 300);
  let size = 0;
  const asked = new Map();
  await page.route("**/api/v1/state", (route) => {
    version += 1;
    body.version = version;
    body.at = new Date(Date.parse(one.at) + version * 1000).toISOString();
    body.jobs[3].text = `changed ${version}`;
    const json = JSON.stringify(body);
    size = gzipSync(json).length;
    asked.set(version, Date.now());
    return route.fulfill({ contentType: "application/json", body: json });
  });
  let [paint, filled] = [Infinity, Infinity];
  // The best of three: what else runs on this machine is not what is measured.
  for (let times = 0; times < 3; times += 1) {
    await page.goto("about:blank");
    await page.goto(daemon.base);
    await page.waitForSelector("text=train-99");
    const [painted, now] = await page.evaluate(() => [performance.getEntriesByName("first-contentful-paint")[0].startTime, performance.now()]);
    [paint, filled] = [Math.min(paint, painted), Math.min(filled, now)];
  }
  assert.ok(paint < 1000, `first paint after ${paint} ms`);
  await look(page, "many-jobs");
  // From the page's question to the rows that the answer changed.
  await page.evaluate(() => {
    globalThis.changes = [];
    new MutationObserver(() => {
      const version = Number(/changed (\d+)/.exec(document.getElementById("main").textContent)?.[1]);
      if (globalThis.changes.at(-1)?.[0] !== version) globalThis.changes.push([version, Date.now()]);
    }).observe(document.getElementById("main"), { childList: true, characterData: true, subtree: true });
  });
  await page.waitForFunction(() => globalThis.changes.length >= 4, null, { polling: 200 });
  const changes = await page.evaluate(() => globalThis.changes);
  const delays = changes.slice(1).map(([seen, at]) => at - asked.get(seen));
  const update = Math.min(...delays);
  assert.ok(update < 250, `with so many rows an update took ${delays} ms`);
  await page.goto(`${daemon.base}/#/instances`);
  await page.waitForSelector("text=31000299");
  await look(page, "many-instances");
  await page.getByLabel("Filter instances").fill("31000299");
  await until("one row", async () => (await page.locator("main tbody tr").count()) === 1);
  await page.context().close();

  // The real daemon's own, whole.
  const real = await newPage();
  let bytes = 0;
  const client = await real.context().newCDPSession(real);
  await client.send("Network.enable");
  client.on("Network.loadingFinished", (event) => { bytes += event.encodedDataLength; });
  await real.goto(daemon.base);
  await settled(real);
  // The same with so many rows, as the daemon sends them.
  const ofRows = size - gzipSync(JSON.stringify(one)).length;
  assert.ok(bytes + ofRows < 300_000, `${bytes} bytes, and ${ofRows} more of rows`);
  await real.context().close();
  told(`100 jobs and 300 instances: first paint after ${paint.toFixed(0)} ms, filled within ${filled.toFixed(0)} ms; updates seen after ${delays.join(", ")} ms; ${bytes + ofRows} bytes (${bytes} with ${one.jobs.length} jobs and ${one.instances.length} instances)`);
}

async function hostileWords() {
  const page = await newPage({ token: true });
  const evil = "</td><script>globalThis.pwned=1</script><img src=x onerror=\"globalThis.pwned=1\"><svg onload=globalThis.pwned=1> javascript:pwned";
  // Every text that somebody else may have chosen; names, words and numbers are closed sets.
  const kept = /^(at|since|deadline|.*_at|timezone|version|tone|status|wish|severity|policy|rental|scope|measure|limit|from|to|job|replica|tick)$|dollars|hours/;
  const spoil = (value, key = "") => {
    if (Array.isArray(value)) return value.map((one) => spoil(one, key));
    if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, spoil(one, name)]));
    return typeof value === "string" && !kept.test(key) ? evil : value;
  };
  await page.route("**/api/v1/**", async (route) => {
    if (route.request().url().endsWith("/events")) return route.continue();
    try {
      const answer = await route.fetch();
      return await route.fulfill({ response: answer, json: spoil(await answer.json()) });
    } catch (error) {
      // The page went on to another view meanwhile.
      return /disposed|closed|aborted|handled/i.test(error.message) ? undefined : Promise.reject(error);
    }
  });
  const { decisions } = await (await fetch(`${daemon.base}/api/v1/decisions`)).json();
  for (const path of ["", "#/job/finetune", "#/instances", "#/decisions", `#/decisions/${decisions[0].tick}`, "#/policies", `#/job/${encodeURIComponent("<img src=x onerror=pwned=1>")}`]) {
    await page.goto(`${daemon.base}/${path}`);
    await page.reload();
    await settled(page);
    const made = await page.evaluate(() => [globalThis.pwned, document.querySelectorAll("main img, main script, main iframe, main a[href^='javascript']").length]);
    assert.deepEqual(made, [undefined, 0], path);
  }
  await page.unrouteAll({ behavior: "ignoreErrors" });
  await page.context().close();
  told("hostile words are shown as words");
}

async function emptyAndFailing() {
  const page = await newPage({ expectErrors: true });
  const one = await state();
  let body = { ...one, jobs: [], instances: [], limits: [], news: [], actions: [], dropped: [], notices: [], money: { ...one.money, credit_dollars: null, on_demand_equivalent_dollars: "0", spend_dollars: "0" }, account: null, trouble: ["no poll of the marketplace has succeeded yet"] };
  await page.route("**/api/v1/state", (route) => route.fulfill({ json: body }));
  await page.goto(daemon.base);
  await page.waitForSelector("text=No jobs. Write a policy");
  await look(page, "empty");
  body = { ...one, trouble: ["spending stops: the disk is full", "the marketplace did not answer within 30 s; tried 3 times"] };
  await page.reload();
  await page.waitForSelector("text=spending stops: the disk is full");
  await look(page, "failing");
  await page.unroute("**/api/v1/state");
  await daemon.killDaemon();
  await page.waitForSelector("text=haggle does not answer", { timeout: 30000 });
  await look(page, "gone");
  await page.context().close();
  told("empty, failing and gone are told");
}

// `node page.mjs keyboard everyButton` tries these alone.
const all = { everyView, liveUpdate, keyboard, manyRows, hostileWords, everyButton, emptyAndFailing };
const only = process.argv.slice(2);

try {
  for (const [name, part] of Object.entries(all)) if (only.length === 0 || only.includes(name)) await part();
  assert.deepEqual(problems, [], "no errors on the console, and nothing asked of elsewhere");
  told("the page holds");
} catch (error) {
  console.error(error);
  if (problems.length > 0) console.error(problems);
  process.exitCode = 1;
} finally {
  await browser.close();
  await daemon.stop();
}
