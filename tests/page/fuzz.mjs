// The API against its own description, by schemathesis, on real daemons on the embedded market.

import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { start, TOKEN } from "./daemon.mjs";

/** Whether all that it tried is as the description says. */
function tried(daemon, config, more) {
  const file = join(daemon.home, "schemathesis.toml");
  writeFileSync(file, config);
  const ran = spawnSync(process.env.SCHEMATHESIS, [
    "--config-file", file, "--no-color",
    "run", `${daemon.base}/api/v1/openapi.json`,
    "--header", `Authorization: Bearer ${TOKEN}`,
    "--max-examples", process.env.FUZZ_EXAMPLES ?? "25",
    "--seed", process.env.FUZZ_SEED ?? "7",
    "--request-timeout", "20",
    "--generation-database", "none",
    ...more,
  ], { stdio: "inherit", cwd: daemon.home });
  return ran.status === 0;
}

async function on(work) {
  const daemon = await start();
  try {
    if (!work(daemon)) process.exitCode = 1;
  } finally {
    await daemon.stop();
  }
}

// The stream of events has no end; its test is in Rust and in page.mjs.
const finite = ["--exclude-path", "/api/v1/events", "--exclude-checks", "ignored_auth"];
await on((daemon) => {
  // Any names, which hardly any job has, and then that of one.
  const any = tried(daemon, "", ["--phases", "coverage,fuzzing", ...finite]);
  const known = tried(daemon, "[parameters]\n\"path.name\" = \"finetune\"\n",
    ["--phases", "fuzzing", "--include-path-regex", "^/api/v1/jobs/", "--exclude-checks", "ignored_auth"]);
  return any && known;
});
// After ten wrong tokens none is looked at for a minute, so each daemon is sent a few.
for (const paths of ["^/api/v1/jobs/[^/]+/(pause|resume|stop|done)$", "^/api/v1/kill$", "^/api/v1/resume-all$"]) {
  await on((daemon) => tried(daemon, "", ["--phases", "coverage", "--checks", "ignored_auth", "--include-path-regex", paths]));
}
