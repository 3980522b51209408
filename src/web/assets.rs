//! The page's files: part of the program, and the same for whoever asks.

use std::sync::OnceLock;

use axum::body::Bytes;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use super::answer::{gzip, tagged};
use crate::types::hex::hex;

/// What the page may do: run its own scripts and styles, and talk to where it came from. Nothing else.
pub(super) const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
     img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

struct Asset {
    name: &'static str,
    kind: &'static str,
    text: &'static str,
}

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

const INDEX: Asset = Asset {
    name: "index.html",
    kind: HTML,
    text: include_str!("page/index.html"),
};

const ASSETS: [Asset; 9] = [
    Asset {
        name: "style.css",
        kind: "text/css; charset=utf-8",
        text: include_str!("page/style.css"),
    },
    Asset {
        name: "app.js",
        kind: SCRIPT,
        text: include_str!("page/app.js"),
    },
    Asset {
        name: "api.js",
        kind: SCRIPT,
        text: include_str!("page/api.js"),
    },
    Asset {
        name: "dom.js",
        kind: SCRIPT,
        text: include_str!("page/dom.js"),
    },
    Asset {
        name: "board.js",
        kind: SCRIPT,
        text: include_str!("page/board.js"),
    },
    Asset {
        name: "job.js",
        kind: SCRIPT,
        text: include_str!("page/job.js"),
    },
    Asset {
        name: "lists.js",
        kind: SCRIPT,
        text: include_str!("page/lists.js"),
    },
    Asset {
        name: "chart.js",
        kind: SCRIPT,
        text: include_str!("page/chart.js"),
    },
    Asset {
        name: "icon.svg",
        kind: "image/svg+xml",
        text: include_str!("page/icon.svg"),
    },
];

struct Made {
    asset: &'static Asset,
    tag: String,
    text: Bytes,
    packed: Option<Bytes>,
}

fn made() -> &'static [Made] {
    static MADE: OnceLock<Vec<Made>> = OnceLock::new();
    static ALL: [&[Asset]; 2] = [&[INDEX], &ASSETS];
    MADE.get_or_init(|| {
        ALL.iter()
            .flat_map(|some| some.iter())
            .map(|asset| Made {
                asset,
                tag: format!("\"{}\"", hex(&Sha256::digest(asset.text.as_bytes())[..12])),
                text: Bytes::from_static(asset.text.as_bytes()),
                packed: gzip(asset.text.as_bytes()),
            })
            .collect()
    })
}

fn serve(name: &str, headers: &HeaderMap) -> Response {
    let found = made().iter().find(|made| made.asset.name == name);
    match found {
        Some(made) => {
            let kind = (made.asset.kind, &made.tag[..]);
            tagged(headers, kind, &made.text, made.packed.as_ref())
        }
        None => (StatusCode::NOT_FOUND, "there is no such file\n").into_response(),
    }
}

/// The page.
pub(super) async fn index(headers: HeaderMap) -> Response {
    serve(INDEX.name, &headers)
}

/// A file of the page. They are looked up in a table, so no path leads anywhere else.
pub(super) async fn file(Path(name): Path<String>, headers: HeaderMap) -> Response {
    serve(&name, &headers)
}

/// Headers of the page's files.
pub(super) async fn guard(mut response: Response) -> Response {
    response.headers_mut().insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(POLICY),
    );
    response.headers_mut().insert(
        HeaderName::from_static("permissions-policy"),
        HeaderValue::from_static("camera=(), geolocation=(), microphone=()"),
    );
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a person who has just opened the page has read, before anything of theirs.
    #[test]
    fn the_page_is_small_and_asks_nothing_of_elsewhere() {
        let mut bytes = 0;
        for made in made() {
            bytes += made.packed.as_ref().map_or(made.text.len(), Bytes::len);
            let text = made.asset.text;
            for foreign in [
                "http://",
                "https://",
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "eval(",
                "document.write",
            ] {
                let svg = text.replace("http://www.w3.org/2000/svg", "");
                assert!(!svg.contains(foreign), "{} has {foreign}", made.asset.name);
            }
        }
        assert!(bytes < 40_000, "{bytes} bytes");
        let html = INDEX.text;
        assert!(
            !html.contains(" style=") && !html.contains("<script>") && !html.contains(" onclick=")
        );
    }
}
