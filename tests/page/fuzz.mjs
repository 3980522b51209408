// The API against its own description, by schemathesis, on a real daemon on the embedded market.

import { spawnSync } from "node:child_process";
import { start, TOKEN } from "./daemon.mjs";

const daemon = await start();
try {
  // The stream of events has no end; its test is in Rust and in page.mjs. Wrong tokens come last, for after ten
  // of them none is looked at for a minute.
  const common = [
    "run", `${daemon.base}/api/v1/openapi.json`,
    "--header", `Authorization: Bearer ${TOKEN}`,
    "--exclude-path", "/api/v1/events",
    "--max-examples", process.env.FUZZ_EXAMPLES ?? "25",
    "--seed", process.env.FUZZ_SEED ?? "7",
    "--request-timeout", "20",
    "--generation-database", "none",
    "--no-color",
  ];
  for (const more of [
    ["--phases", "coverage,fuzzing", "--exclude-checks", "ignored_auth"],
    ["--phases", "coverage", "--checks", "ignored_auth", "--include-method", "POST"],
  ]) {
    const ran = spawnSync(process.env.SCHEMATHESIS, [...common, ...more], { stdio: "inherit", cwd: daemon.home });
    process.exitCode ||= ran.status ?? 1;
  }
} finally {
  await daemon.stop();
}
