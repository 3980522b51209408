// 200 requests a second with 50 streams of events, then clients that mean harm: ticks come as often as without
// them. Not part of the tests, for it measures: `node load.mjs` with HAGGLE_BIN, on a machine that is idle.
// LOAD_SECONDS is for how long each part is measured, LOAD_DELAY_MAX what ticks may be late, in percent.

import assert from "node:assert/strict";
import { connect } from "node:net";
import { start, until, TOKEN } from "./daemon.mjs";

const SECONDS = Number(process.env.LOAD_SECONDS ?? 30);
const DELAY_MAX = Number(process.env.LOAD_DELAY_MAX ?? 10);
// Ticks of 10 s by the market's clock, each second by ours.
const daemon = await start({ speed: 10 });
const port = Number(new URL(daemon.base).port);

const wait = (ms) => new Promise((done) => setTimeout(done, ms));

/** The numbers and the moments of the last ticks. */
const ticks = [];
const streamEnd = new AbortController();

/** Reads a stream of events; `news` is called with each number that is new. */
async function stream(signal, news) {
  const answer = await fetch(`${daemon.base}/api/v1/events`, { signal });
  assert.equal(answer.status, 200);
  let newest = 0;
  try {
    for await (const chunk of answer.body) {
      for (const [, data] of Buffer.from(chunk).toString().matchAll(/^data: (.*)$/gm)) {
        const { version } = JSON.parse(data);
        if (version > newest) news(version);
        newest = Math.max(newest, version);
      }
    }
  } catch (error) {
    if (error.name !== "AbortError") throw error;
  }
}

/** What the time between two ticks was while something was done, in the middle and at most. */
async function during(work) {
  const begun = ticks.length;
  const result = await work();
  const gaps = ticks.slice(begun).map((at, index, all) => at - all[index - 1]).slice(1).sort((a, b) => a - b);
  assert.ok(gaps.length >= 3, "ticks go on");
  const mean = gaps.reduce((sum, gap) => sum + gap, 0) / gaps.length;
  return { result, mean, worst: gaps.at(-1), count: gaps.length };
}

async function requests() {
  const streams = new AbortController();
  let events = 0;
  const reading = Array.from({ length: 50 }, () => stream(streams.signal, () => { events += 1; }));
  const paths = ["state", "jobs/finetune", "decisions?limit=5", "story?limit=5", "state"];
  const took = [];
  let [busy, cut] = [0, 0];
  const all = [];
  const begun = performance.now();
  for (let number = 0; performance.now() - begun < SECONDS * 1000; number += 1) {
    const asked = performance.now();
    const ask = async () => {
      const answer = await fetch(`${daemon.base}/api/v1/${paths[number % paths.length]}`);
      await answer.arrayBuffer();
      return answer.status;
    };
    // A connection lives for so long, whatever is asked on it; who is cut off asks again, as browsers do.
    all.push(ask().catch(() => { cut += 1; return ask(); }).then((status) => {
      if (status === 503) busy += 1;
      else assert.equal(status, 200);
      took.push(performance.now() - asked);
    }));
    // By the clock, so that what was late is caught up with.
    await wait(begun + (number + 1) * 5 - performance.now());
  }
  await Promise.all(all);
  const rate = took.length / ((performance.now() - begun) / 1000);
  streams.abort();
  await Promise.all(reading);
  took.sort((a, b) => a - b);
  return { rate, busy, cut, events, median: took[took.length >> 1], p99: took[Math.floor(took.length * 0.99)] };
}

/** Thousands of connections: some say nothing, some a letter now and then, some send bodies without end, some
 * ask for much and read none of it. Each that is ended comes again. */
async function harm() {
  let [ended, sent, over] = [0, 0, false];
  const open = new Set();
  const whole = "GET /api/v1/state HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n";
  const body = Buffer.alloc(64 * 1024, "x");
  const come = (kind) => {
    const socket = connect(port, "127.0.0.1");
    open.add(socket);
    let timer = null;
    socket.on("error", () => {});
    socket.on("close", () => {
      clearInterval(timer);
      open.delete(socket);
      ended += 1;
      if (!over) setTimeout(come, 200, kind);
    });
    if (kind === 1) {
      socket.write("GET / HTTP/1.1\r\nhost: 127.0.0.1\r\nx: ");
      timer = setInterval(() => socket.write("a"), 500);
    } else if (kind === 2) {
      socket.write(`POST /api/v1/kill HTTP/1.1\r\nhost: 127.0.0.1\r\nx-haggle-token: ${TOKEN}\r\ncontent-type: application/json\r\ncontent-length: 4000000000\r\n\r\n`);
      const more = () => { while (!over && !socket.destroyed && socket.write(body)) sent += body.length; };
      socket.on("drain", more);
      more();
    } else if (kind === 3) {
      socket.pause();
      socket.write(whole.repeat(200));
    }
  };
  for (let number = 0; number < 3000; number += 1) {
    come(number % 4);
    if (number % 100 === 0) await wait(20);
  }
  await wait(SECONDS * 1000);
  over = true;
  const held = open.size;
  for (const socket of open) socket.destroy();
  const begun = performance.now();
  await until("it answers again", async () => (await fetch(`${daemon.base}/api/v1/state`)).ok, 60);
  return { held, ended, sent, again: performance.now() - begun };
}

try {
  stream(streamEnd.signal, () => ticks.push(performance.now())).catch(() => {});
  await until("some ticks", () => ticks.length >= 8, 120);
  const idle = await during(() => wait(SECONDS * 1000));
  const told = (what, { mean, worst, count }) => {
    const late = (mean / idle.mean - 1) * 100;
    console.log(`${what}: a tick each ${mean.toFixed(0)} ms, at most ${worst.toFixed(0)} ms (${count} of them), ${late.toFixed(1)} % later than without`);
    return late;
  };
  told("idle", idle);
  const loaded = await during(requests);
  const { rate, busy, cut, events, median, p99 } = loaded.result;
  console.log(`${rate.toFixed(0)} requests a second (${busy} told to come again, ${cut} cut off and asked again), median ${median.toFixed(1)} ms, p99 ${p99.toFixed(1)} ms; 50 streams, ${events} events`);
  assert.ok(events >= 50 * 3, "each stream is told");
  const late = told("meanwhile", loaded);
  const harmed = await during(harm);
  const { held, ended, sent, again } = harmed.result;
  console.log(`${held} connections held on, ${ended} were ended, ${(sent / 1e6).toFixed(0)} MB of bodies were sent; it answered ${again.toFixed(0)} ms after they were gone`);
  const later = told("meanwhile", harmed);
  assert.equal((await (await fetch(`${daemon.base}/api/v1/state`)).json()).spending_forbidden, false);
  assert.ok(late <= DELAY_MAX && later <= DELAY_MAX, `ticks are more than ${DELAY_MAX} % late`);
} finally {
  streamEnd.abort();
  await daemon.stop();
}
