//! Bad input: each gets its error of the table, and the next customer is served.

use std::convert::Infallible;

use axum::body::Body;
use axum::http::{HeaderValue, Request, header};

use crate::support::{Form, Shop, ask, tone, wav};

/// Bytes that look like nothing, the same in each run (xorshift).
fn noise(n: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_u32;
    let next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    std::iter::repeat_with(next).take(n).collect()
}

#[tokio::test]
async fn an_empty_file_and_a_clip_of_no_samples_are_400() {
    let shop = Shop::open().await;
    shop.send(ask(b"", "")).await.is_error(400, "empty_audio");
    shop.send(ask(&wav(1, 16, 16_000, &[]), "")).await.is_error(400, "empty_audio");
    shop.still_answers().await;
}

#[tokio::test]
async fn what_is_no_sound_is_refused() {
    let shop = Shop::open().await;
    let clip = tone(0.5);
    for (what, bytes) in [
        ("random bytes", noise(5000)),
        ("zeros", vec![0; 5000]),
        ("text", b"<html><body>404 not found</body></html>".to_vec()),
        ("one byte", vec![b'R']),
        ("a cut header", clip[..30].to_vec()),
        ("a header whose rate is 0", wav(1, 16, 0, &[0; 64])),
        ("a header of 0 bits", wav(1, 0, 16_000, &[0; 64])),
    ] {
        let answer = shop.send(ask(&bytes, "")).await;
        assert!([400, 415].contains(&answer.status.as_u16()), "{what}: {:?}", answer.json);
        assert!(answer.json["detail"].is_string() && answer.json["code"].is_string(), "{what}: {:?}", answer.json);
    }
    shop.still_answers().await;
}

#[tokio::test]
async fn samples_that_are_no_numbers_are_400() {
    let shop = Shop::open().await;
    for bad in [f32::NAN, f32::INFINITY] {
        let samples: Vec<u8> = (0..1600).flat_map(|i| if i == 800 { bad } else { 0.1_f32 }.to_le_bytes()).collect();
        shop.send(ask(&wav(3, 32, 16_000, &samples), "")).await.is_error(400, "invalid_samples");
    }
    shop.still_answers().await;
}

#[tokio::test]
async fn a_clip_beyond_the_limit_is_413() {
    let shop = Shop::with(|config| config.max_audio_s = 1.0).await;
    shop.send(ask(&tone(2.0), "")).await.is_error(413, "audio_too_long");
    shop.still_answers().await;
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_413_whether_it_says_its_length_or_not() {
    let shop = Shop::with(|config| config.max_body_bytes = 20_000).await;
    for route in ["/test-intent", "/batch-intent"] {
        let unannounced = Form::new().file("file", "big.wav", &tone(2.0)).post(route);
        shop.send(unannounced).await.is_error(413, "body_too_large");
        let mut announced = Form::new().file("file", "big.wav", &tone(2.0)).post(route);
        announced.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(64_200_u64));
        shop.send(announced).await.is_error(413, "body_too_large");
    }
    shop.still_answers().await;
}

#[tokio::test]
async fn parameters_out_of_range_are_422() {
    let shop = Shop::open().await;
    for query in ["top_k=0", "top_k=1000000", "top_k=abc", "top_k=-3", "top_k=5.5", "transcribe=perhaps"] {
        shop.send(ask(&tone(0.3), query)).await.is_error(422, "invalid_parameter");
        let form = Form::new().file("files", "a.wav", &tone(0.3));
        shop.send(form.post(&format!("/batch-intent?{query}"))).await.is_error(422, "invalid_parameter");
    }
    shop.send(ask(&tone(0.3), "language=klingon")).await.is_error(422, "unsupported_language");
    assert_eq!(shop.control.started(), 0, "nothing of this reaches the model");
    shop.still_answers().await;
}

#[tokio::test]
async fn text_fields_must_be_short_text() {
    let shop = Shop::open().await;
    let form = || Form::new().file("file", "a.wav", &tone(0.3));
    shop.send(form().text("language", b"\xFF\xFE\x80").post("/test-intent")).await.is_error(422, "invalid_parameter");
    let long = vec![b'a'; 5000];
    shop.send(form().text("language", &long).post("/test-intent")).await.is_error(422, "invalid_parameter");
    shop.send(form().text("top_k", b"many").post("/test-intent")).await.is_error(422, "invalid_parameter");
    shop.still_answers().await;
}

#[tokio::test]
async fn a_form_without_a_file_teaches_the_right_call() {
    let shop = Shop::open().await;
    for (route, call) in [("/test-intent", "curl -F file=@"), ("/batch-intent", "curl -F files=@")] {
        for form in [Form::new(), Form::new().text("language", b"tw"), Form::new().file("audio", "a.wav", &tone(0.3))] {
            let answer = shop.send(form.post(route)).await;
            answer.is_error(400, "missing_file");
            assert!(answer.json["detail"].as_str().unwrap().contains(call), "{:?}", answer.json);
        }
    }
}

#[tokio::test]
async fn too_many_files_are_422() {
    let shop = Shop::with(|config| config.max_batch_files = 3).await;
    let files = |n: usize| (0..n).fold(Form::new(), |form, i| form.file("files", &format!("{i}.wav"), &tone(0.3)));
    shop.send(files(2).post("/test-intent")).await.is_error(422, "too_many_files");
    shop.send(files(4).post("/batch-intent")).await.is_error(422, "too_many_files");
    assert_eq!(shop.send(files(3).post("/batch-intent")).await.json["successful"], 3);
}

#[tokio::test]
async fn a_body_that_is_no_form_is_400() {
    let shop = Shop::open().await;
    let post = |content_type: Option<&str>, body: Vec<u8>| {
        let mut request = Request::post("/test-intent");
        if let Some(content_type) = content_type {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        request.body(Body::from(body)).unwrap()
    };
    shop.send(post(None, tone(0.3))).await.is_error(400, "not_multipart");
    shop.send(post(Some("audio/wav"), tone(0.3))).await.is_error(400, "not_multipart");
    shop.send(post(Some("application/json"), b"{}".to_vec())).await.is_error(400, "not_multipart");
    shop.send(post(Some("multipart/form-data"), tone(0.3))).await.is_error(400, "malformed_body");
    let multipart = Form::content_type();
    shop.send(post(Some(&multipart), Vec::new())).await.is_error(400, "malformed_body");
    shop.send(post(Some(&multipart), noise(3000))).await.is_error(400, "malformed_body");
    let whole = Form::new().file("file", "a.wav", &tone(0.3)).bytes();
    let cut = shop.send(post(Some(&multipart), whole[..whole.len() / 2].to_vec())).await;
    cut.is_error(400, "malformed_body");
    let detail = cut.json["detail"].as_str().unwrap();
    assert!(detail.contains("incomplete"), "it says what is wrong with it: {detail}");
    shop.still_answers().await;
}

/// A body of `/test-intent` that arrives in pieces of `n` bytes.
fn in_pieces(body: &[u8], n: usize) -> Request<Body> {
    let pieces: Vec<Result<Vec<u8>, Infallible>> = body.chunks(n).map(|piece| Ok(piece.to_vec())).collect();
    Request::post("/test-intent")
        .header(header::CONTENT_TYPE, Form::content_type())
        .body(Body::from_stream(futures::stream::iter(pieces)))
        .unwrap()
}

/// Each piece of such a head was once a reason to look through all of it again.
#[tokio::test]
async fn a_part_s_head_without_end_is_400() {
    let shop = Shop::open().await;
    let clip = Form::new().file("file", "a.wav", &tone(0.3)).bytes();
    let endless = vec![b'x'; 100_000];
    let first_line = clip.iter().position(|b| *b == b'\n').unwrap() + 1;
    for begun in [&[][..], &clip[..first_line], &[&clip[..first_line], b"X-Long: "].concat()] {
        for n in [1000, 200_000] {
            let answer = shop.send(in_pieces(&[begun, &endless].concat(), n)).await;
            answer.is_error(400, "malformed_body");
            let detail = answer.json["detail"].as_str().unwrap();
            assert!(detail.contains("headers without an end"), "it says what is wrong with it: {detail}");
        }
    }
    // A form in drops is as good as any; its headers may be far longer than anybody's are.
    for n in [1, 2, 61] {
        let answer = shop.send(in_pieces(&clip, n)).await;
        assert_eq!((answer.status.as_u16(), &answer.json["filename"]), (200, &"a.wav".into()), "{:?}", answer.json);
    }
    let long = Form::new().file("file", &"x".repeat(12_000), &tone(0.3)).bytes();
    assert_eq!(shop.send(in_pieces(&long, 500)).await.status.as_u16(), 200);
    shop.still_answers().await;
}

#[tokio::test]
async fn a_hostile_file_name_is_echoed_harmlessly() {
    let shop = Shop::open().await;
    let named = |name: &str| Form::new().file("file", name, &tone(0.3)).post("/test-intent");
    for (name, echoed) in [
        ("../../etc/passwd", "../../etc/passwd"), // a name, never opened
        ("a\tb.wav", "ab.wav"),
        ("ti\u{202E}vaw.exe", "tivaw.exe"),
        ("<b>&.wav", "<b>&.wav"),
        ("", ""),
    ] {
        let answer = shop.send(named(name)).await;
        assert_eq!(answer.json["filename"], echoed, "{:?}", answer.json);
    }
    let long = shop.send(named(&"ɔ".repeat(3000))).await;
    assert_eq!(long.json["filename"].as_str().unwrap().chars().count(), 255);
    // A part's header cannot hold these at all.
    shop.send(named("a\u{7}\u{1b}[2Jb.wav")).await.is_error(400, "malformed_body");
    // More of a form's headers from inside a name: still one file, or none.
    let injected = shop.send(named("a.wav\"\r\nX-Evil: 1\r\nY: \"")).await;
    assert!(injected.status.is_success() || injected.status.is_client_error(), "{:?}", injected.json);
    shop.still_answers().await;
}
