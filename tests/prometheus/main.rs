//! A real Prometheus that scrapes a real server with real clients: the promised families and queries have the values
//! that follow from what the test did, every panel has data, and the service levels are those of this traffic.
//!
//! Needs `prometheus` on PATH: that of the local cluster, which the gate builds.
#![forbid(unsafe_code)]

mod panels;
mod promised;
mod scraped;
mod traffic;

use traffic::Traffic;

/// One server and one Prometheus for all: what one looks at makes no other wrong.
#[tokio::test(flavor = "multi_thread")]
async fn promised_queries_have_the_values_of_what_was_done_and_every_panel_has_data() {
    let traffic = Traffic::start().await;
    let scraped = scraped::scraped(&traffic.server).await;
    traffic
        .while_sending(async {
            let done = traffic.happens(&scraped).await;
            promised::families_are_right(&scraped, &traffic, &done).await;
            promised::queries_are_right(&scraped, &done).await;
            panels::have_data(&scraped).await;
            promised::service_levels_are_right(&scraped).await;
        })
        .await;
}
