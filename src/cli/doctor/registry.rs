//! Whether the jobs' images can be pulled as their policies say: their registries are asked without a login,
//! as hosts ask them. No password is sent.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use reqwest::{Client, Method, StatusCode, Url};

use super::findings::{Findings, Health};
use crate::cli::context::block_on;
use crate::net::{install_crypto, root_cause};
use crate::policy::LoadedJob;

/// A registry that does not answer in this time is not waited for.
const WAIT: Duration = Duration::from_secs(10);

/// The most of a token's document that is read, bytes.
const TOKEN_BYTES_MAX: usize = 64 * 1024;

/// The forms in which a registry may describe an image.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.docker.distribution.manifest.v2+json";

/// What a registry said.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    /// Whoever asks may pull it.
    Public,
    /// Not without a login. Most say the same of what is not there.
    Closed,
    /// It is not there.
    Missing,
    /// It said something else, or nothing.
    Unknown(String),
}

/// Looks at each image once.
pub(super) fn images(jobs: &[LoadedJob], findings: &mut Findings) {
    let mut by_image: BTreeMap<&str, Vec<&LoadedJob>> = BTreeMap::new();
    for loaded in jobs {
        if let Some(image) = loaded.job.run.image.as_deref() {
            by_image.entry(image).or_default().push(loaded);
        }
    }
    for (image, jobs) in by_image {
        let said = block_on(async { Ok(ask(image).await) });
        let said = said.unwrap_or_else(|failure| Said::Unknown(failure.in_short()));
        let without: Vec<&str> = jobs
            .iter()
            .filter(|loaded| loaded.job.run.login.is_none())
            .map(|loaded| loaded.job.name.as_str())
            .collect();
        judge(image, &said, &without, findings);
    }
}

/// `without` names the jobs that give no login.
fn judge(image: &str, said: &Said, without: &[&str], findings: &mut Findings) {
    match said {
        Said::Public => findings.ok("image", format!("{image} can be pulled by everybody")),
        Said::Closed if without.is_empty() => {
            findings.ok("image", format!("{image} needs the login that its policy gives"));
        }
        Said::Closed => findings.advise(
            "image",
            Health::Warn,
            format!(
                "{image} cannot be pulled without a login: it is private, or not there, and {} gives none",
                without.join(", ")
            ),
            "give [run.login] in the policy, or correct the image's name",
        ),
        Said::Missing => findings.advise(
            "image",
            Health::Warn,
            format!("its registry has no {image}"),
            "correct the image's name and tag in the policy",
        ),
        Said::Unknown(why) => findings.advise(
            "image",
            Health::Warn,
            format!("whether {image} can be pulled is not known: {why}"),
            "look whether the registry can be reached, and at the image's name",
        ),
    }
}

/// An image's registry as a URL, its repository, and its tag or digest; `None`: it is no image's name.
fn parts(image: &str) -> Option<(Url, String, String)> {
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (image, None),
    };
    let (registry, rest) = match name.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => {
            (Some(first), rest)
        }
        _ => (None, name),
    };
    // A colon before a slash is of a port.
    let (path, tag) = match rest.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        _ => (rest, None),
    };
    let official = registry.is_none() && !path.contains('/');
    let repository = if official {
        format!("library/{path}")
    } else {
        path.to_owned()
    };
    let host = match registry {
        None | Some("docker.io" | "index.docker.io") => "registry-1.docker.io",
        Some(host) => host,
    };
    // As container engines do it, this machine's own is spoken to in clear.
    let url = Url::parse(&format!("https://{host}/")).ok()?;
    let url = if is_here(&url) {
        Url::parse(&format!("http://{host}/")).ok()?
    } else {
        url
    };
    let reference = digest.or(tag).unwrap_or("latest");
    (!path.is_empty()).then(|| (url, repository, reference.to_owned()))
}

fn is_here(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let bare = host.trim_matches(['[', ']']);
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

async fn ask(image: &str) -> Said {
    let Some((registry, repository, reference)) = parts(image) else {
        return Said::Unknown("it is not the name of an image".to_owned());
    };
    match asked(&registry, &repository, &reference).await {
        Ok(said) => said,
        Err(error) => Said::Unknown(root_cause(&error.without_url())),
    }
}

async fn asked(registry: &Url, repository: &str, reference: &str) -> reqwest::Result<Said> {
    install_crypto();
    let client = Client::builder()
        .user_agent(concat!("haggle/", env!("CARGO_PKG_VERSION")))
        .timeout(WAIT)
        .build()?;
    let address = format!("{registry}v2/{repository}/manifests/{reference}");
    let manifest = |token: Option<String>| {
        // Only its head: a whole one would count as a pull.
        let request = client.request(Method::HEAD, &address);
        let request = request.header("accept", MANIFESTS);
        match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    };
    let first = manifest(None).send().await?;
    if first.status() != StatusCode::UNAUTHORIZED {
        return Ok(said(first.status()));
    }
    let challenge = first.headers().get("www-authenticate");
    let challenge = challenge.and_then(|value| value.to_str().ok());
    let scope = format!("repository:{repository}:pull");
    let Some(address) = challenge.and_then(|challenge| token_address(challenge, &scope)) else {
        return Ok(Said::Closed);
    };
    let answer = client.get(address).send().await?;
    match token_in(answer).await? {
        Some(token) => Ok(said(manifest(Some(token)).send().await?.status())),
        None => Ok(Said::Closed),
    }
}

fn said(status: StatusCode) -> Said {
    match status.as_u16() {
        200..=299 => Said::Public,
        401 | 403 => Said::Closed,
        404 => Said::Missing,
        status => Said::Unknown(format!("its registry answers {status}")),
    }
}

/// Where a challenge says that a token is given; `None`: it asks for a password.
fn token_address(challenge: &str, scope: &str) -> Option<Url> {
    let (scheme, rest) = challenge.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let value = |name: &str| {
        let at = rest.find(&format!("{name}=\""))? + name.len() + 2;
        Some(rest[at..].split('"').next()?.to_owned())
    };
    let mut url = Url::parse(&value("realm")?).ok()?;
    let scope = value("scope").unwrap_or_else(|| scope.to_owned());
    url.query_pairs_mut().append_pair("scope", &scope);
    if let Some(service) = value("service") {
        url.query_pairs_mut().append_pair("service", &service);
    }
    (url.scheme() == "https" || is_here(&url)).then_some(url)
}

async fn token_in(mut answer: reqwest::Response) -> reqwest::Result<Option<String>> {
    if !answer.status().is_success() {
        return Ok(None);
    }
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        body.extend_from_slice(&chunk);
        if body.len() > TOKEN_BYTES_MAX {
            return Ok(None);
        }
    }
    let document: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let token = document
        .get("token")
        .or_else(|| document.get("access_token"));
    Ok(token.and_then(|token| token.as_str()).map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::extract::Request;
    use axum::http::Response;

    #[test]
    fn images_are_looked_for_where_a_container_engine_would() {
        let of = |image| {
            let (url, repository, reference) = parts(image).unwrap();
            format!("{url} {repository} {reference}")
        };
        for (image, at) in [
            (
                "debian",
                "https://registry-1.docker.io/ library/debian latest",
            ),
            (
                "pytorch/pytorch:2.4",
                "https://registry-1.docker.io/ pytorch/pytorch 2.4",
            ),
            ("docker.io/a/b:c", "https://registry-1.docker.io/ a/b c"),
            ("ghcr.io/me/x/y:1", "https://ghcr.io/ me/x/y 1"),
            ("ghcr.io/me/x@sha256:ab", "https://ghcr.io/ me/x sha256:ab"),
            ("reg.example:5000/x", "https://reg.example:5000/ x latest"),
            ("localhost:5000/x:2", "http://localhost:5000/ x 2"),
        ] {
            assert_eq!(of(image), at, "{image}");
        }
        assert!(parts("").is_none());
    }

    /// A registry that gives a token to everybody, and with it what is public: as the large ones do.
    async fn registry() -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = listener.local_addr().unwrap().to_string();
        let realm = format!("http://{origin}/token");
        let answer = move |request: Request| {
            let with_token = request.headers().contains_key("authorization");
            let path = request.uri().path().to_owned();
            let query = request.uri().query().unwrap_or_default().to_owned();
            let challenge = format!("Bearer realm=\"{realm}\",service=\"here\"");
            async move {
                let made = Response::builder();
                let made = match path.as_str() {
                    "/token" => {
                        assert!(query.contains("service=here"), "{query}");
                        assert!(query.contains("scope=repository"), "{query}");
                        return made.body(r#"{"token":"t"}"#.to_owned()).unwrap();
                    }
                    _ if !with_token => made.status(401).header("www-authenticate", challenge),
                    "/v2/me/public/manifests/1" => made.status(200),
                    "/v2/me/public/manifests/2" => made.status(404),
                    _ => made.status(403),
                };
                made.body(String::new()).unwrap()
            }
        };
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
        origin
    }

    #[tokio::test]
    async fn a_private_image_without_a_login_is_found_and_a_public_one_is_not() {
        let registry = registry().await;
        let of = |name: &str| format!("{registry}/me/{name}");
        assert_eq!(ask(&of("public:1")).await, Said::Public);
        assert_eq!(ask(&of("public:2")).await, Said::Missing);
        assert_eq!(ask(&of("private:1")).await, Said::Closed);
        let health = |said, without: &[&str]| {
            let mut findings = Findings::default();
            judge("x", &said, without, &mut findings);
            findings.0[0].health
        };
        assert_eq!(health(Said::Public, &["a"]), Health::Ok);
        assert_eq!(health(Said::Closed, &[]), Health::Ok);
        assert_eq!(health(Said::Closed, &["a"]), Health::Warn);
        assert_eq!(health(Said::Missing, &[]), Health::Warn);
        let nowhere = ask("127.0.0.1:1/x:1").await;
        assert!(matches!(nowhere, Said::Unknown(_)), "{nowhere:?}");
    }
}
