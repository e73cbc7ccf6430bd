//! A picture from one Chromium through the server to another.

use std::time::Duration;

use anyhow::bail;
use tests::browser::Options;
use tests::page::Source;
use tests::process::target_dir;
use tests::{Browser, MediaServer, Page, wait_for};

const SOON: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_published_in_one_browser_moves_in_another() {
    let server = MediaServer::closed(&[]).await;
    let token = server.token("cam-1", "publish,view");
    let (sender, receiver) = tokio::join!(
        Browser::start(Options::default()),
        Browser::start(Options::default())
    );

    let sending = Page::open(&sender, &server.url(""), Some(&token)).await;
    sending.publish("cam-1", Source::Camera).await;
    sending.published(SOON).await;

    let watching = Page::open(&receiver, &server.url(""), Some(&token)).await;
    watching.watch("cam-1", SOON).await;
    watching.frames_grow_by(100, SOON).await;
    watching.picture_changes(SOON).await;

    wait_for(
        "the server's frame rate to be the browser's",
        SOON,
        || async {
            // Read anew each time: a busy machine captures fewer frames than it did a moment ago.
            let shown = sending.figure("#publish-figures", "fps").await?;
            let metrics = server.metrics().await;
            let rates: Vec<f64> = metrics
                .matching("media_video_frame_rate", &[])
                .map(|sample| sample.value)
                .collect();
            if rates.len() == 2 && rates.iter().all(|rate| (rate - shown).abs() <= shown * 0.1) {
                return Ok(());
            }
            bail!("browser {shown}, server {rates:?}")
        },
    )
    .await;
    let metrics = server.metrics().await;
    assert_eq!(metrics.value("media_active_sessions", &[]), Some(2.0));
    assert_eq!(metrics.sum("media_sessions_created_total", &[]), 2.0);
    receiver
        .screenshot(&target_dir().join("screenshots/watching.png"))
        .await;
    sender
        .screenshot(&target_dir().join("screenshots/publishing.png"))
        .await;

    // Closing the tab is how most people leave. The page closes its connection too, and the server may know
    // by that first.
    receiver.leave().await;
    let delete = [("method", "DELETE"), ("path", "/whep/{device}/{session}")];
    wait_for("the viewer's session to be closed", SOON, || async {
        let metrics = server.metrics().await;
        let active = metrics.value("media_active_sessions", &[]);
        let normal = metrics.sum("media_sessions_closed_total", &[("reason", "normal_close")]);
        let deletes = metrics.sum("media_http_requests_total", &delete);
        if active == Some(1.0) && normal == 1.0 && deletes == 1.0 {
            return Ok(());
        }
        bail!("{active:?} active, {normal} closed normally, {deletes} DELETE")
    })
    .await;
    tokio::join!(sender.close(), receiver.close());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_that_came_before_the_device_sees_it_when_it_comes_and_again_when_it_comes_back() {
    let server = MediaServer::open(&[]).await;
    let (sender, receiver) = tokio::join!(
        Browser::start(Options::default()),
        Browser::start(Options::default())
    );
    receiver.open(&server.url("/#device=cam-2")).await;
    let watching = Page(&receiver);
    wait_for("the page to say that nobody publishes", SOON, || async {
        match watching.text("#watch-state").await? {
            state if state == "waiting" => Ok(()),
            state => bail!("{state}: {}", watching.text("#stage-message").await?),
        }
    })
    .await;

    let sending = Page::open(&sender, &server.url(""), None).await;
    for _ in 0..2 {
        sending.publish("cam-2", Source::TestPicture).await;
        sending.published(SOON).await;
        watching.frames_grow_by(30, SOON).await;
        watching.picture_changes(SOON).await;
        sending.stop_publishing().await;
        wait_for("the page to say that no media comes", SOON, || async {
            match watching.text("#watch-state").await? {
                state if state != "live" => Ok(()),
                state => bail!("{state}"),
            }
        })
        .await;
    }
    tokio::join!(sender.close(), receiver.close());
}
