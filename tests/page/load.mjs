// 200 requests a second, 50 streams of events, and clients that hold on: ticks take as long as without them.

import assert from "node:assert/strict";
import { connect } from "node:net";
import { start, until } from "./daemon.mjs";

const SECONDS = Number(process.env.LOAD_SECONDS ?? 20);
const daemon = await start();
const { port } = new URL(daemon.base);

/** Ticks so far, and the seconds that they took together. */
async function ticks() {
  const text = await (await fetch(`${daemon.base}/metrics`)).text();
  const value = (name) => Number(new RegExp(`^${name} (.*)$`, "m").exec(text)[1]);
  return { count: value("haggle_tick_duration_seconds_count"), seconds: value("haggle_tick_duration_seconds_sum") };
}

async function during(work) {
  const before = await ticks();
  const result = await work();
  const after = await ticks();
  return { result, count: after.count - before.count, each: (after.seconds - before.seconds) / (after.count - before.count) };
}

const wait = (ms) => new Promise((done) => setTimeout(done, ms));

try {
  await until("some ticks", async () => (await ticks()).count >= 3, 90);
  const idle = await during(() => wait(SECONDS * 1000));
  const stop = new AbortController();
  let events = 0;
  const streams = Array.from({ length: 50 }, async () => {
    const answer = await fetch(`${daemon.base}/api/v1/events`, { signal: stop.signal });
    assert.equal(answer.status, 200);
    for await (const chunk of answer.body) if (/data:/.test(Buffer.from(chunk).toString())) events += 1;
  }).map((stream) => stream.catch((error) => { if (error.name !== "AbortError") throw error; }));
  // They say nothing, or half a request, or ask for much and read none of it.
  const held = Array.from({ length: 40 }, (_, number) => {
    const socket = connect(Number(port), "127.0.0.1");
    socket.on("error", () => {});
    socket.pause();
    const whole = "GET /api/v1/state HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n";
    socket.write(["", "GET / HTTP/1.1\r\nhost:", whole.repeat(100)][number % 3]);
    return socket;
  });
  const paths = ["state", "jobs/finetune", "decisions?limit=5", "story?limit=5", "state"];
  const loaded = await during(async () => {
    const took = [];
    let refused = 0;
    const end = Date.now() + SECONDS * 1000;
    const all = [];
    for (let number = 0; Date.now() < end; number += 1) {
      const begun = performance.now();
      all.push(fetch(`${daemon.base}/api/v1/${paths[number % paths.length]}`).then(async (answer) => {
        await answer.arrayBuffer();
        if (answer.status === 503) refused += 1;
        else assert.equal(answer.status, 200);
        took.push(performance.now() - begun);
      }));
      await wait(5 - (performance.now() - begun));
    }
    await Promise.all(all);
    took.sort((a, b) => a - b);
    return { rate: took.length / SECONDS, refused, median: took[Math.floor(took.length / 2)], p99: took[Math.floor(took.length * 0.99)] };
  });
  stop.abort();
  await Promise.all(streams);
  for (const socket of held) socket.destroy();
  const ms = (seconds) => `${(seconds * 1000).toFixed(1)} ms`;
  const { rate, refused, median, p99 } = loaded.result;
  console.log(`${rate.toFixed(0)} requests a second (${refused} told to come again), median ${median.toFixed(1)} ms, p99 ${p99.toFixed(1)} ms, ${events} events`);
  console.log(`a tick took ${ms(idle.each)} before (${idle.count} ticks) and ${ms(loaded.each)} meanwhile (${loaded.count} ticks), by the market's clock`);
  assert.ok(loaded.count > 0 && events >= 50, "ticks went on, and were told of");
  // By a clock of 60 times the speed.
  assert.ok(loaded.each < idle.each * 2 + 60 * 0.25, "ticks are held up");
} finally {
  await daemon.stop();
}
