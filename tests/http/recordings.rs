//! Who may use recordings, and what the answers look like where nothing is recorded.

use crate::identity::{for_device, of_tenant};
use crate::requests::*;
use crate::table::*;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, SystemTime};
use tests::MediaServer;
use tests::process::TempDir;
use tests::recordings::{ask, json_of, request as body};

const ALL: &str = "/api/media/recordings";

async fn with_token(
    server: &MediaServer,
    token: Option<&str>,
    method: Method,
    path: &str,
    body: Option<Value>,
) -> (u16, Value) {
    let mut request = Client::new().request(method, server.url(&format!("{ALL}{path}")));
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    if let Some(body) = body {
        request = request.body(body.to_string());
    }
    let response = send(request).await;
    let status = response.status().as_u16();
    let text = response.text().await.expect("a body");
    let body = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    (status, body)
}

#[tokio::test]
async fn recordings_are_those_of_who_has_the_grant_for_their_device() {
    let folder = TempDir::new("recordings");
    let path = folder.path().display().to_string();
    let server = MediaServer::closed(&["--recording-dir", &path]).await;
    let publish = server.token("cam-1", "publish");
    let offer = request(&server, Method::POST, "/whip/cam-1", SDP, PUBLISH).bearer_auth(&publish);
    let opened = send(offer).await;
    assert_eq!(opened.status(), 201);
    let location = location(&opened);
    let session = location.rsplit('/').next().expect("an id");
    let nothing = json!({"format": null, "codec": null, "maxDuration": -1});
    let wanted = Some(body(session, "cam-1", nothing));
    let (mine, other) = (
        server.token("cam-1", "record"),
        server.token("cam-2", "record"),
    );

    let none = with_token(&server, None, Method::POST, "", wanted.clone()).await;
    assert_eq!(
        none,
        (
            401,
            json!({"error": "Unauthorized", "message": "未授权访问"})
        )
    );
    let (status, refused) =
        with_token(&server, Some(&publish), Method::POST, "", wanted.clone()).await;
    assert_eq!((status, &refused["error"]), (403, &json!("Forbidden")));
    let counted = server.metrics().await;
    let counted = counted.value("media_auth_failures_total", &[("reason", "grant")]);
    assert_eq!(counted, Some(1.0));

    let (status, started) = with_token(&server, Some(&mine), Method::POST, "", wanted).await;
    assert_eq!(status, 200, "{started}");
    let recording = &started["recording"];
    let id = recording["id"].as_str().expect("an id");
    for (field, value) in [
        ("sessionId", json!(session)),
        ("deviceId", json!("cam-1")),
        ("userId", json!("")),
        ("state", json!("recording")),
    ] {
        assert_eq!(recording[field], value, "{started}");
    }
    let paths = [format!("/{id}"), format!("/{id}/download")];
    for path in &paths {
        let (status, hidden) = with_token(&server, Some(&other), Method::GET, path, None).await;
        assert_eq!(
            (status, &hidden["error"]),
            (404, &json!("recording_not_found")),
            "{path}"
        );
    }
    let (status, hidden) = with_token(&server, Some(&other), Method::DELETE, &paths[0], None).await;
    assert_eq!(
        (status, &hidden["error"]),
        (404, &json!("recording_not_found"))
    );
    let stop = format!("/{id}/stop");
    let (status, hidden) = with_token(&server, Some(&other), Method::POST, &stop, None).await;
    assert_eq!(
        (status, &hidden["error"]),
        (500, &json!("recording_stop_failed"))
    );
    let (_, all) = with_token(&server, Some(&other), Method::GET, "", None).await;
    assert_eq!(all, json!({"recordings": [], "total": 0}));
    let (_, all) = with_token(&server, Some(&mine), Method::GET, "", None).await;
    assert_eq!(all["recordings"][0]["id"], id, "{all}");

    let (status, stopped) = with_token(&server, Some(&mine), Method::POST, &stop, None).await;
    assert_eq!(
        (status, &stopped["recording"]["state"]),
        (200, &json!("failed")),
        "no picture came"
    );
    let metrics = server.metrics().await;
    let ended = |result| metrics.value("media_recordings_total", &[("result", result)]);
    assert_eq!((ended("empty"), ended("failed")), (Some(1.0), Some(0.0)));
    let (status, gone) = with_token(&server, Some(&mine), Method::GET, &paths[1], None).await;
    assert_eq!((status, &gone["error"]), (404, &json!("file_not_found")));
}

#[tokio::test]
async fn a_tenant_never_sees_or_changes_recordings_of_another() {
    let folder = TempDir::new("recordings");
    let path = folder.path().display().to_string();
    let server =
        MediaServer::closed(&["--tenant-claim", "tenantId", "--recording-dir", &path]).await;
    let [acme, globex] = ["acme", "globex"].map(|t| of_tenant(&server, t, "publish,record,admin"));
    let mut sessions = Vec::new();
    for token in [&acme, &globex] {
        let offer = request(&server, Method::POST, "/whip/cam-1", SDP, PUBLISH).bearer_auth(token);
        let opened = send(offer).await;
        assert_eq!(opened.status(), 201);
        let location = location(&opened);
        sessions.push(location.rsplit('/').next().expect("an id").to_owned());
    }
    let wanted = Some(body(&sessions[0], "cam-1", json!({})));
    let ask = async |token: &str, method: Method, path: &str, body: Option<Value>| {
        with_token(&server, Some(token), method, path, body).await
    };

    let (status, refused) = ask(&globex, Method::POST, "", wanted.clone()).await;
    assert_eq!(
        (status, &refused["error"]),
        (404, &json!("session_not_found"))
    );
    let (status, started) = ask(&acme, Method::POST, "", wanted).await;
    assert_eq!(status, 200, "{started}");
    assert_eq!(
        started["recording"]["deviceId"], "cam-1",
        "as its clients call it"
    );
    let id = started["recording"]["id"].as_str().expect("an id");
    let one = format!("/{id}");
    let stop = format!("/{id}/stop");

    // While it is under way, and when it has ended.
    for active in [1, 0] {
        for (method, path, status, error) in [
            (Method::GET, one.clone(), 404, "recording_not_found"),
            (
                Method::GET,
                format!("/{id}/download"),
                404,
                "recording_not_found",
            ),
            (Method::DELETE, one.clone(), 404, "recording_not_found"),
            (Method::POST, stop.clone(), 500, "recording_stop_failed"),
        ] {
            let (found, hidden) = ask(&globex, method.clone(), &path, None).await;
            assert_eq!(
                (found, &hidden["error"]),
                (status, &json!(error)),
                "{method} {path}"
            );
        }
        let (_, all) = ask(&globex, Method::GET, "", None).await;
        assert_eq!(all, json!({"recordings": [], "total": 0}));
        let (_, stats) = ask(&globex, Method::GET, "/stats", None).await;
        assert_eq!(
            (&stats["activeRecordings"], &stats["totalRecordings"]),
            (&json!(0), &json!(0))
        );
        let (_, stats) = ask(&acme, Method::GET, "/stats", None).await;
        assert_eq!(
            (&stats["activeRecordings"], &stats["totalRecordings"]),
            (&json!(active), &json!(1))
        );
        let (status, shown) = ask(&acme, Method::GET, &one, None).await;
        assert_eq!(
            (status, &shown["recording"]["deviceId"]),
            (200, &json!("cam-1"))
        );
        if active == 1 {
            let (status, stopped) = ask(&acme, Method::POST, &stop, None).await;
            assert_eq!(status, 200, "{stopped}");
        }
    }
}

#[tokio::test]
async fn a_cleanup_deletes_old_recordings_of_its_callers_devices_and_no_others() {
    let folder = TempDir::new("recordings");
    let path = folder.path().display().to_string();
    let server =
        MediaServer::closed(&["--tenant-claim", "tenantId", "--recording-dir", &path]).await;
    let recorders = ["acme", "globex"].map(|t| of_tenant(&server, t, "publish,record"));
    let mut ids = Vec::new();
    for recorder in &recorders {
        for device in ["cam-1", "cam-2", "young"] {
            let id = recorded(&server, recorder, device).await;
            if device != "young" {
                age(folder.path(), &id);
            }
            ids.push(id);
        }
    }
    let [_, _, acme_young, globex_1, globex_2, globex_young] = &ids[..] else {
        panic!("three of each: {ids:?}");
    };

    let publisher = of_tenant(&server, "acme", "publish,view,control");
    let admin = of_tenant(&server, "acme", "admin");
    let of_one = for_device(&server, "globex", "cam-1", "record");
    // Everybody else's stay, whoever asks; each row leaves what the next one finds.
    for (who, token, days, deleted, left) in [
        ("nobody's", &publisher, 7, 0, &ids[..]),
        ("the admin's, too young", &admin, 30, 0, &ids[..]),
        (
            "the admin's",
            &admin,
            7,
            2,
            &[acme_young, globex_1, globex_2, globex_young].map(String::clone)[..],
        ),
        (
            "those of one device",
            &of_one,
            7,
            1,
            &[acme_young, globex_2, globex_young].map(String::clone)[..],
        ),
        (
            "a tenant's",
            &recorders[1],
            7,
            1,
            &[acme_young, globex_young].map(String::clone)[..],
        ),
    ] {
        let cleanup = format!("/cleanup?days={days}");
        let done = with_token(&server, Some(token), Method::POST, &cleanup, None).await;
        let said = json!({"deleted": deleted, "maxAgeDays": days});
        assert_eq!(done, (200, said), "{who}");
        let mut found = notes(folder.path());
        let mut left = left.to_vec();
        found.sort();
        left.sort();
        assert_eq!(found, left, "{who}");
    }
    // A number of no days is none at all: nobody loses what is young.
    for days in ["0", "-1", "x", ""] {
        let cleanup = format!("/cleanup?days={days}");
        let done = with_token(&server, Some(&admin), Method::POST, &cleanup, None).await;
        assert_eq!(
            done,
            (200, json!({"deleted": 0, "maxAgeDays": 7})),
            "{days:?}"
        );
    }
    let (status, _) = with_token(&server, None, Method::POST, "/cleanup?days=1", None).await;
    assert_eq!(status, 401);
}

/// A recording of that device which has ended, without a picture.
async fn recorded(server: &MediaServer, token: &str, device: &str) -> String {
    let path = format!("/whip/{device}");
    let offer = request(server, Method::POST, &path, SDP, PUBLISH).bearer_auth(token);
    let opened = send(offer).await;
    assert_eq!(opened.status(), 201, "{device}");
    let location = location(&opened);
    let session = location.rsplit('/').next().expect("an id");
    let wanted = Some(body(session, device, json!({})));
    let (status, started) = with_token(server, Some(token), Method::POST, "", wanted).await;
    assert_eq!(status, 200, "{started}");
    let id = started["recording"]["id"].as_str().expect("an id");
    let stop = format!("/{id}/stop");
    let (status, stopped) = with_token(server, Some(token), Method::POST, &stop, None).await;
    assert_eq!(status, 200, "{stopped}");
    id.to_owned()
}

/// Makes a recording one that ended eight days ago.
fn age(folder: &Path, id: &str) {
    let then = SystemTime::now() - Duration::from_secs(8 * 86_400);
    let path = folder.join(format!("{id}.json"));
    let note = std::fs::File::options().write(true).open(path);
    note.expect("it is there")
        .set_modified(then)
        .expect("it is ours");
}

/// Ids of the recordings whose notes are in a folder.
fn notes(folder: &Path) -> Vec<String> {
    let files = std::fs::read_dir(folder).expect("a folder");
    let names = files.map(|file| file.expect("an entry").file_name().into_string());
    let note = |name: String| name.strip_suffix(".json").map(str::to_owned);
    names.filter_map(|name| note(name.expect("text"))).collect()
}

#[tokio::test]
async fn a_request_that_is_not_right_is_told_what_is_wrong_as_it_always_was() {
    let folder = TempDir::new("recordings");
    let path = folder.path().display().to_string();
    let server = MediaServer::open(&["--recording-dir", &path]).await;
    let location = open(&server, "/whip/cam-1", PUBLISH).await;
    let session = location.rsplit('/').next().expect("an id");
    let unknown = "00000000-0000-8000-8000-000000000000";
    for (wanted, status, error, says) in [
        (
            json!({"deviceId": "cam-1"}),
            400,
            "invalid_request",
            "'SessionID' failed on the 'required' tag",
        ),
        (
            json!({"sessionId": session}),
            400,
            "invalid_request",
            "'DeviceID' failed on the 'required' tag",
        ),
        (
            body(session, "../etc", json!({})),
            400,
            "invalid_request",
            "a device is named by",
        ),
        (
            body(unknown, "cam-1", json!({})),
            404,
            "session_not_found",
            "WebRTC session not found: 00000000",
        ),
        (
            body(session, "cam-2", json!({})),
            404,
            "session_not_found",
            "WebRTC session not found",
        ),
        (
            body(session, "cam-1", json!({"codec": "X"})),
            500,
            "recording_start_failed",
            "unsupported codec: X",
        ),
    ] {
        let refused = json_of(
            ask(&server, Method::POST, "", Some(wanted.clone())).await,
            status,
        )
        .await;
        assert_eq!(refused["error"], error, "{wanted}: {refused}");
        let message = refused["message"].as_str().unwrap_or_default();
        assert!(message.contains(says), "{wanted}: {refused}");
    }
    let empty = json_of(ask(&server, Method::POST, "", None).await, 400).await;
    assert_eq!(empty, json!({"error": "invalid_request", "message": "EOF"}));
    for id in ["x", "short", unknown, "..%2f..%2fetc%2fpasswd"] {
        let missing = json_of(
            ask(&server, Method::GET, &format!("/{id}"), None).await,
            404,
        )
        .await;
        assert_eq!(missing["error"], "recording_not_found", "{id}");
        let missing = json_of(
            ask(&server, Method::GET, &format!("/{id}/download"), None).await,
            404,
        )
        .await;
        assert_eq!(missing["error"], "recording_not_found", "{id}");
        let missing = json_of(
            ask(&server, Method::POST, &format!("/{id}/stop"), None).await,
            500,
        )
        .await;
        assert_eq!(missing["error"], "recording_stop_failed", "{id}");
    }
    assert_eq!(
        std::fs::read_dir(folder.path()).expect("a folder").count(),
        0
    );
}

#[tokio::test]
async fn without_a_folder_nothing_is_recorded_and_the_answer_says_so() {
    let server = MediaServer::open(&[]).await;
    let location = open(&server, "/whip/cam-1", PUBLISH).await;
    let session = location.rsplit('/').next().expect("an id");
    let wanted = Some(body(session, "cam-1", json!({})));
    let off = json_of(ask(&server, Method::POST, "", wanted).await, 500).await;
    assert!(
        off["message"]
            .as_str()
            .unwrap_or_default()
            .contains("--recording-dir"),
        "{off}"
    );
    let all = json_of(ask(&server, Method::GET, "", None).await, 200).await;
    assert_eq!(all, json!({"recordings": [], "total": 0}));
    let stats = json_of(ask(&server, Method::GET, "/stats", None).await, 200).await;
    assert_eq!(stats["totalRecordings"], 0, "{stats}");
}

#[tokio::test]
async fn what_recordings_are_answered_is_what_the_document_says() {
    let folder = TempDir::new("recordings");
    let path = folder.path().display().to_string();
    let server = MediaServer::open(&["--recording-dir", &path]).await;
    let location = open(&server, "/whip/cam-1", PUBLISH).await;
    let session = location.rsplit('/').next().expect("an id");
    let recording = |state: &str| {
        json!({
            "id": "*", "sessionId": session, "deviceId": "cam-1", "userId": "", "state": state, "format": "webm",
            "fileSize": 0, "durationSeconds": 0.0, "width": 0, "height": 0, "frameRate": 0.0, "bitrate": 0,
            "startedAt": "20*", "framesWritten": 0,
        })
    };
    let mut failed = recording("failed");
    failed["stoppedAt"] = json!("20*");
    failed["reason"] = json!("the device sent no picture that a file could begin with");
    let stats = |active: u32| {
        json!({
            "activeRecordings": active, "totalRecordings": 1, "totalDurationSeconds": 0.0, "totalBytesWritten": 0,
            "averageFrameRate": 0.0,
        })
    };
    let (one, stop) = (
        "/api/media/recordings/{recording}",
        "/api/media/recordings/{recording}/stop",
    );
    let gone = json!({"error": "recording_not_found", "message": "*"});
    let missing = |field: &str| required("StartRecordingRequest", field);
    let invalid = |says: &str| json!({"error": "invalid_request", "message": says});
    let (no_session, no_device) = (missing("SessionID"), missing("DeviceID"));
    let neither = format!("{no_session}\n{no_device}");
    let number = "json: cannot unmarshal number into Go struct field StartRecordingRequest.sessionId of type string";
    let half = "json: cannot unmarshal number 1.5 into Go struct field StartRecordingRequest.maxDuration of type int";
    let array = "json: cannot unmarshal array into Go value of type handlers.StartRecordingRequest";
    let long = "x".repeat(64 * 1024 + 1);
    let too_long = json!({"error": "too_large", "message": "the body is larger than 64 KiB"});
    let failing = |error: &str| json!({"error": error, "message": "*"});
    let download = "/api/media/recordings/{recording}/download";
    let of_stats = ("GET", "/api/media/recordings/stats");
    let mut table = Table::new(&server, None);
    table
        .run(vec![
            row("start: no body", ("POST", ALL), "", 400, invalid("EOF")),
            row("start: blanks", ("POST", ALL), "  ", 400, invalid("EOF")),
            row(
                "start: half a body",
                ("POST", ALL),
                "{\"sessionId\":",
                400,
                invalid("unexpected EOF"),
            ),
            row(
                "start: no JSON",
                ("POST", ALL),
                "hello",
                400,
                invalid("invalid character 'h' looking for beginning of value"),
            ),
            row("start: too long", ("POST", ALL), long, 413, too_long),
            row("start: an array", ("POST", ALL), "[]", 400, invalid(array)),
            row(
                "start: no session",
                ("POST", ALL),
                json!({"deviceId": "cam-1"}),
                400,
                invalid(&no_session),
            ),
            row(
                "start: no device",
                ("POST", ALL),
                json!({"sessionId": session}),
                400,
                invalid(&no_device),
            ),
            row(
                "start: neither",
                ("POST", ALL),
                "{}",
                400,
                invalid(&neither),
            ),
            row(
                "start: a number",
                ("POST", ALL),
                json!({"sessionId": 1, "deviceId": "cam-1"}),
                400,
                invalid(number),
            ),
            row(
                "start: half a second",
                ("POST", ALL),
                json!({"maxDuration": 1.5}),
                400,
                invalid(half),
            ),
            row(
                "start: other letters, of another session",
                ("POST", ALL),
                json!({"SESSIONID": NOWHERE, "deviceid": "cam-1"}),
                404,
                failing("session_not_found"),
            ),
            row(
                "start",
                ("POST", ALL),
                body(session, "cam-1", json!({})),
                200,
                json!({"recording": recording("recording")}),
            )
            .keep(&[("recording", "/recording/id")]),
            row(
                "list",
                ("GET", ALL),
                "",
                200,
                json!({"recordings": [recording("recording")], "total": 1}),
            ),
            row("stats", of_stats, "", 200, stats(1)),
            row(
                "stop",
                ("POST", stop),
                "",
                200,
                json!({"recording": failed}),
            ),
            row("get", ("GET", one), "", 200, json!({"recording": failed})),
            row(
                "no list",
                ("GET", ALL),
                "",
                200,
                json!({"recordings": [], "total": 0}),
            ),
            row("stats afterwards", of_stats, "", 200, stats(0)),
            row(
                "download: no file",
                ("GET", download),
                "",
                404,
                failing("file_not_found"),
            ),
            row(
                "clean up",
                ("POST", "/api/media/recordings/cleanup?days=x"),
                "",
                200,
                json!({"deleted": 0, "maxAgeDays": 7}),
            ),
        ])
        .await;
    // A picture never came; what the answers look like does not depend on it.
    let id = table.kept["recording"].clone();
    let file = folder.path().join(format!("{id}.webm"));
    std::fs::write(&file, "no film").expect("written");
    let film = row("download", ("GET", download), "", 200, json!("no film"));
    let film = film
        .header("content-type", "video/webm")
        .header("accept-ranges", "bytes");
    table.run(vec![film]).await;
    // A folder in its place can't be deleted as a file.
    std::fs::remove_file(&file).expect("it is there");
    std::fs::create_dir(&file).expect("made");
    age(folder.path(), &id);
    let then = SystemTime::now() - Duration::from_secs(8 * 86_400);
    let made = std::fs::File::open(&file).expect("it is there");
    made.set_modified(then).expect("it is ours");
    let cleanup = ("POST", "/api/media/recordings/cleanup?days=7");
    table
        .run(vec![
            row(
                "delete: the disk refuses",
                ("DELETE", one),
                "",
                500,
                failing("delete_failed"),
            ),
            row(
                "clean up: the disk refuses",
                cleanup,
                "",
                500,
                failing("cleanup_failed"),
            ),
        ])
        .await;
    std::fs::remove_dir(&file).expect("it is empty");
    table
        .run(vec![
            row(
                "delete",
                ("DELETE", one),
                "",
                200,
                json!({"message": "recording deleted successfully"}),
            ),
            row("delete again", ("DELETE", one), "", 404, gone),
            row(
                "stop afterwards",
                ("POST", stop),
                "",
                500,
                json!({"error": "recording_stop_failed", "message": "*"}),
            ),
            row(
                "a slash too many",
                ("GET", "/api/media/recordings/"),
                "",
                301,
                json!(""),
            )
            .header("location", ALL),
        ])
        .await;
    table.check(28);
}
