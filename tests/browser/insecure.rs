//! The page on a plain http origin: no camera and no screen, the reason for it, and everything else.

use std::time::Duration;

use serde_json::json;
use tests::browser::Options;
use tests::page::Source;
use tests::{Browser, MediaServer, Page};

const SOON: Duration = Duration::from_secs(60);

/// A host that no browser takes for the machine itself, as it does localhost.
const HOST: &str = "media.test";

#[tokio::test(flavor = "multi_thread")]
async fn without_https_the_page_says_why_there_is_no_camera_and_the_test_picture_still_plays() {
    let server = MediaServer::open(&[]).await;
    let base = format!("http://{HOST}:{}", server.http.port());
    let options = || Options {
        hosts: vec![(HOST.to_owned(), server.http.ip().to_string())],
        ..Options::default()
    };
    let (sender, receiver) = tokio::join!(Browser::start(options()), Browser::start(options()));

    let sending = Page::open(&sender, &base, None).await;
    let script = "const disabled = id => document.getElementById(id).disabled;
        return [isSecureContext, disabled('source-camera'), disabled('source-screen'),
            disabled('source-test'), document.getElementById('source-note').checkVisibility()];";
    let state = sender
        .run(script, vec![])
        .await
        .expect("the page can be read");
    assert_eq!(state, json!([false, true, true, false, true]));
    let note = sending.text("#source-note").await.expect("a note");
    assert!(
        note.contains("https") && note.contains("test picture"),
        "{note}"
    );

    sending.publish("cam-1", Source::TestPicture).await;
    sending.published(SOON).await;
    let watching = Page::open(&receiver, &base, None).await;
    watching.watch("cam-1", SOON).await;
    watching.frames_grow_by(30, SOON).await;
    watching.picture_changes(SOON).await;
    tokio::join!(sender.close(), receiver.close());
}
