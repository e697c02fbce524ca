//! Web bundles and a shop's pages as files, and which pages of other origins may ask.

use std::fs;
use std::path::Path;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use tower::ServiceExt;

use crate::support::{Shop, ask, tone};

/// A shop with a model in two parts, a page, and what must not be served.
async fn shop(root: &Path) -> Shop {
    let [models, site] = ["models", "site"].map(|name| root.join(name));
    fs::create_dir_all(models.join("default")).unwrap();
    fs::create_dir_all(site.join("pictures")).unwrap();
    fs::create_dir_all(site.join(".git")).unwrap();
    fs::write(models.join("default/manifest.json"), "{}").unwrap();
    fs::write(models.join("default/intent-00-ab.bin"), [7_u8; 1000]).unwrap();
    fs::write(site.join("index.html"), "<!doctype html><title>Shop</title>").unwrap();
    fs::write(site.join("engine.wasm"), b"\0asm").unwrap();
    fs::write(site.join("engine.wasm.br"), b"small").unwrap();
    fs::write(site.join(".git/config"), "secret").unwrap();
    fs::write(root.join("secret.txt"), "secret").unwrap();
    Shop::with(|config| {
        config.models_dir = Some(models);
        config.site_dir = Some(site);
    })
    .await
}

struct File {
    status: StatusCode,
    headers: axum::http::HeaderMap,
    body: Vec<u8>,
}

async fn get(shop: &Shop, path: &str, headers: &[(header::HeaderName, &str)]) -> File {
    let mut request = Request::get(path);
    for (name, value) in headers {
        request = request.header(name, *value);
    }
    let response = shop.app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    File { status: parts.status, headers: parts.headers, body: body.collect().await.unwrap().to_bytes().to_vec() }
}

#[tokio::test]
async fn a_part_of_a_model_comes_whole_or_from_where_it_was_cut() {
    let root = tempfile::tempdir().unwrap();
    let shop = shop(root.path()).await;
    let part = "/models/default/intent-00-ab.bin";
    let whole = get(&shop, part, &[]).await;
    assert_eq!((whole.status, whole.body.len()), (StatusCode::OK, 1000));
    assert_eq!(whole.headers[header::CACHE_CONTROL], "public, max-age=31536000, immutable");
    assert_eq!(whole.headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
    let rest = get(&shop, part, &[(header::RANGE, "bytes=400-")]).await;
    assert_eq!((rest.status, rest.body.len()), (StatusCode::PARTIAL_CONTENT, 600));
    assert_eq!(rest.headers[header::CONTENT_RANGE], "bytes 400-999/1000");
    let beyond = get(&shop, part, &[(header::RANGE, "bytes=5000-")]).await;
    assert_eq!(beyond.status, StatusCode::RANGE_NOT_SATISFIABLE);
    // A manifest is asked after at each visit, and not sent again if it is the same.
    let manifest = get(&shop, "/models/default/manifest.json", &[]).await;
    assert_eq!(manifest.headers[header::CACHE_CONTROL], "no-cache");
    let etag = manifest.headers[header::ETAG].to_str().unwrap();
    let again = get(&shop, "/models/default/manifest.json", &[(header::IF_NONE_MATCH, etag)]).await;
    assert_eq!((again.status, again.body.len()), (StatusCode::NOT_MODIFIED, 0));
}

#[tokio::test]
async fn the_site_stands_in_the_place_of_the_page_and_the_routes_stay() {
    let root = tempfile::tempdir().unwrap();
    let shop = shop(root.path()).await;
    let page = get(&shop, "/", &[]).await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(String::from_utf8(page.body).unwrap().contains("<title>Shop"));
    let policy = page.headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
    assert!(policy.contains("script-src 'self' 'wasm-unsafe-eval'"), "{policy}");
    let wasm = get(&shop, "/engine.wasm", &[(header::ACCEPT_ENCODING, "br")]).await;
    assert_eq!(wasm.headers[header::CONTENT_TYPE], "application/wasm");
    assert_eq!((wasm.headers[header::CONTENT_ENCODING].as_bytes(), wasm.body.as_slice()), (&b"br"[..], &b"small"[..]));
    assert_eq!(get(&shop, "/engine.wasm", &[]).await.body, b"\0asm");
    assert_eq!(get(&shop, "/health", &[]).await.status, StatusCode::OK);
    shop.still_answers().await;
}

#[tokio::test]
async fn nothing_outside_and_nothing_hidden_is_served() {
    let root = tempfile::tempdir().unwrap();
    let shop = shop(root.path()).await;
    let paths = [
        "/../secret.txt",
        "/..%2fsecret.txt",
        "/%2e%2e/secret.txt",
        "/pictures/../../secret.txt",
        "/.git/config",
        "/%2egit/config",
        "/%2Egit/config",
        "/models/../secret.txt",
        "/models/..%2f..%2fsecret.txt",
        "/models/%2e%2e/secret.txt",
        "/models/",
        "/models/default",
        "/models/nobody/manifest.json",
        "/nothing.html",
        "/%00",
        "/%ff",
        "/%",
        "/models/default/manifest.json%00.bin",
        "//etc/passwd",
        "/c:/windows",
        "/pictures/..\\..\\secret.txt",
    ];
    for path in paths
        .into_iter()
        .map(str::to_owned)
        .chain([format!("/{}", "a".repeat(5000)), format!("/{}", "a/".repeat(3000))])
    {
        let answer = get(&shop, &path, &[]).await;
        assert!(answer.status.is_client_error() || answer.status.is_redirection(), "{path}: {}", answer.status);
        assert!(!String::from_utf8_lossy(&answer.body).contains("secret\n") && answer.body != b"secret", "{path}");
    }
    for method in [Method::POST, Method::PUT, Method::DELETE] {
        for path in ["/index.html", "/nothing", "/models/default/manifest.json"] {
            let request = Request::builder().method(method.clone()).uri(path).body(Body::empty()).unwrap();
            let answer = shop.send(request).await;
            assert!(answer.status.is_client_error(), "{method} {path}: {}", answer.status);
            assert!(answer.json["code"].is_string(), "{method} {path}: {:?}", answer.json);
        }
    }
    shop.get("/nothing.html").await.is_error(404, "not_found");
}

#[tokio::test]
async fn without_folders_there_is_the_page_and_no_model() {
    let shop = Shop::open().await;
    assert_eq!(get(&shop, "/", &[]).await.status, StatusCode::OK);
    shop.get("/models/default/manifest.json").await.is_error(404, "not_found");
    shop.get("/index.html").await.is_error(404, "not_found");
}

#[tokio::test]
async fn a_model_is_for_every_page_and_answers_are_for_those_that_are_listed() {
    let root = tempfile::tempdir().unwrap();
    let origin = |value: &'static str| [(header::ORIGIN, value)];
    let closed = shop(root.path()).await;
    let model = get(&closed, "/models/default/manifest.json", &origin("https://any.example")).await;
    assert_eq!(model.headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*");
    assert!(
        !get(&closed, "/health", &origin("https://any.example"))
            .await
            .headers
            .contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN)
    );

    let open = Shop::with(|config| config.allowed_origins = vec!["https://shop.example".parse().unwrap()]).await;
    let mut request = ask(&tone(0.3), "");
    request.headers_mut().insert(header::ORIGIN, "https://shop.example".parse().unwrap());
    let answer = open.send(request).await;
    assert_eq!(answer.headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], "https://shop.example");
    let stranger = get(&open, "/health", &origin("https://other.example")).await;
    assert!(!stranger.headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN));
    // What a browser asks before it sends a form with headers of its own.
    let preflight = Request::builder()
        .method(Method::OPTIONS)
        .uri("/test-intent")
        .header(header::ORIGIN, "https://shop.example")
        .header(header::ACCESS_CONTROL_REQUEST_METHOD, "POST")
        .header(header::ACCESS_CONTROL_REQUEST_HEADERS, "x-request-id");
    let answer = open.send(preflight.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], "https://shop.example");
    assert!(answer.headers[header::ACCESS_CONTROL_ALLOW_METHODS].to_str().unwrap().contains("POST"));
}
