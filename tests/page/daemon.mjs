// A daemon on the embedded market, for as long as a test lasts.

import { spawn } from "node:child_process";
import { mkdtempSync, writeFileSync, mkdirSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, dirname } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = join(dirname(fileURLToPath(import.meta.url)), "..", "..");

export const TOKEN = "token-of-the-page-test";

function freePort() {
  return new Promise((done, failed) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => done(port));
    }).on("error", failed);
  });
}

/** Waits until something holds. */
export async function until(what, holds, seconds = 60) {
  const end = Date.now() + seconds * 1000;
  let last = null;
  while (Date.now() < end) {
    try {
      const value = await holds();
      if (value) return value;
    } catch (error) {
      last = error;
    }
    await new Promise((next) => setTimeout(next, 100));
  }
  throw new Error(`${what}: not within ${seconds} s${last ? ` (${last.message})` : ""}`);
}

/** A policy whose work takes 12 hours, with a deadline by the market's clock. */
function withDeadline(at) {
  return [
    "name = \"by-then\"", `deadline = ${new Date(at).toISOString().replace(/\.\d+/, "")}`, "rental = \"auto\"", "finish = \"work\"",
    "[run]", "image = \"pytorch/pytorch:2.5.1\"", "command = \"python train.py\"",
    "[gpu]", "models = [\"RTX 4090\"]",
    "[work]", "gpu_hours = 12",
    "[price]", "max = \"$0.60/gpu-hour\"",
    "[checkpoint]", "every = \"10m\"", "place = \"remote\"",
    "[budget]", "total = \"$10\"", "",
  ].join("\n");
}

/** Starts market and daemon; `stop` ends both. */
export async function start({ speed = 60 } = {}) {
  const home = mkdtempSync(join(tmpdir(), "haggle-page-"));
  const [market, web] = [await freePort(), await freePort()];
  mkdirSync(join(home, "policies"));
  for (const file of readdirSync(join(ROOT, "policies")).filter((name) => /^(finetune|inference|overnight)\.toml$/.test(name))) {
    // Work enough that they outlast a test on a slow machine.
    const text = readFileSync(join(ROOT, "policies", file), "utf8").replace(/^gpu_hours = .*$/m, "gpu_hours = 40");
    writeFileSync(join(home, "policies", file), text);
  }
  // A name and a text that would run, if either was taken for markup.
  writeFileSync(join(home, "policies", "<img src=x onerror=pwned=1>.toml"), "name = \"<script>pwned=1</script>\"\n[run]\nimage = 1\n");
  writeFileSync(join(home, "token"), `${TOKEN}\n`, { mode: 0o600 });
  writeFileSync(join(home, "haggle.toml"), [
    "live = true", `listen = "127.0.0.1:${web}"`, "timezone = \"Europe/Berlin\"", "",
    "[provider]", "kind = \"vast\"", `base_url = "http://127.0.0.1:${market}"`, "",
    "[poll]", "every = \"10s\"", "",
    "[limits]", "per_day = \"$20\"", "per_hour = \"$2.50/hour\"", "",
    "[web]", `token = { file = "${join(home, "token")}" }`, "",
  ].join("\n"));
  const said = [];
  const run = (args) => {
    const child = spawn(process.env.HAGGLE_BIN, args, { cwd: home, env: { PATH: process.env.PATH, HAGGLE_TOKEN: "play" } });
    for (const out of [child.stdout, child.stderr]) out.on("data", (text) => said.push(String(text)));
    return child;
  };
  const children = [run(["market", "--listen", `127.0.0.1:${market}`, "--speed", String(speed), "--wire", "vast"])];
  // Whatever ends this process ends them.
  process.on("exit", () => children.forEach((child) => child.kill("SIGKILL")));
  for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => process.exit(1));
  await until("the market answers", () => fetch(`http://127.0.0.1:${market}/`).then(() => true));
  children.push(run(["run", "--clock", "market"]));
  const base = `http://127.0.0.1:${web}`;
  try {
    await until("the daemon is ready", async () => (await fetch(`${base}/readyz`)).ok, 180);
    const { at } = await (await fetch(`${base}/api/v1/state`)).json();
    writeFileSync(join(home, "policies", "by-then.toml"), withDeadline(Date.parse(at) + 20 * 3600 * 1000));
  } catch (error) {
    throw new Error(`${error.message}\n${said.join("")}`);
  }
  const end = (child) => new Promise((done) => {
    if (child.exitCode !== null || child.signalCode !== null) return done();
    child.on("exit", done);
    child.kill("SIGKILL");
    return undefined;
  });
  return {
    base,
    home,
    said,
    killDaemon: () => end(children[1]),
    stop: async () => {
      for (const child of children.reverse()) await end(child);
      rmSync(home, { recursive: true, force: true });
    },
  };
}
