//! `media-server --demo`: one command, one page, a moving clock.

use std::time::Duration;

use tests::browser::Options;
use tests::process::target_dir;
use tests::{Browser, MediaServer, Page};

const SOON: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_page_plays_the_clock_without_a_click_on_a_desktop_and_on_a_phone() {
    let server = MediaServer::demo().await;
    for (name, width, height, phone) in [
        ("demo-desktop", 1280, 800, false),
        ("demo-phone", 390, 844, true),
    ] {
        let browser = Browser::start(Options {
            width,
            height,
            phone,
            ..Options::default()
        })
        .await;
        let page = Page::open(&browser, &server.url(""), None).await;
        page.frames_grow_by(60, SOON).await;
        page.picture_changes(SOON).await;
        browser
            .screenshot(&target_dir().join(format!("screenshots/{name}.png")))
            .await;
        let overflow = browser
            .run("return document.documentElement.scrollWidth - document.documentElement.clientWidth", vec![])
            .await
            .expect("the page can be measured");
        assert_eq!(overflow, 0, "{name} scrolls sideways");
        browser.close().await;
    }
}
