#!/usr/bin/env bash
# The page in a real Chromium, against a real daemon on the embedded market, and the API against its own
# description by schemathesis. What is not here is skipped, and said so; in CI it must not be.
#
#   tests/page/run.sh            builds haggle and tries both
#   HAGGLE_BIN=… tests/page/run.sh
#   PAGE_SHOTS=DIR tests/page/run.sh   keeps screenshots of every view there
#   PAGE_FROM=../../src/web/page tests/page/run.sh   tries the page's files as they are, without a build
#   node load.mjs                what 200 requests a second and hostile clients do to ticks
set -euo pipefail
cd "$(dirname "$0")"

absent() {
  if [ "${CI:-}" = true ]; then
    echo "$1, and this must not be skipped here" >&2
    exit 1
  fi
  echo "$1: SKIPPED" >&2
  exit 0
}

if [ -z "${HAGGLE_BIN:-}" ]; then
  (cd ../.. && cargo build --locked --quiet --bin haggle)
  HAGGLE_BIN="${CARGO_TARGET_DIR:-$PWD/../../target}/debug/haggle"
fi
export HAGGLE_BIN

command -v node >/dev/null && command -v npm >/dev/null || absent 'there is no node with npm'

if [ -n "${SCHEMATHESIS:-}" ]; then
  node fuzz.mjs
else
  echo 'schemathesis is not here (SCHEMATHESIS names it): the API is not tried against its description' >&2
  [ "${CI:-}" != true ] || exit 1
fi

CHROMIUM="${CHROMIUM:-$(command -v chromium || command -v chromium-browser || true)}"
export CHROMIUM
[ -n "$CHROMIUM" ] || absent 'there is no Chromium'
[ -d node_modules/playwright-core ] || npm ci --silent --no-audit --no-fund --ignore-scripts
node page.mjs
