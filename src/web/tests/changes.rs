//! Wishes, and what is promised of them.

use super::*;

#[test]
fn changes_are_the_wishes_that_the_command_line_writes() {
    let place = Place::new(With::default());
    let of = |wish| Ask::Job {
        job: "train-0".parse().unwrap(),
        wish,
    };
    for (what, wish) in [
        ("pause", Wish::Pause),
        ("resume", Wish::Run),
        ("stop", Wish::Stop),
        ("done", Wish::Done),
    ] {
        let answer = place.change(&format!("/api/v1/jobs/train-0/{what}"), "{}");
        assert_eq!(answer.status, 202, "{}", answer.text());
        assert!(
            answer.json()["text"]
                .as_str()
                .unwrap()
                .contains("train-0 will be")
        );
        assert_eq!(place.asks().last(), Some(&of(wish)));
    }
    assert_eq!(place.change("/api/v1/resume-all", "{}").status, 202);
    assert_eq!(place.asks().last(), Some(&Ask::ResumeAll));
    let database = place.directory.path().join("haggle.db");
    for body in [
        "{}",
        "{\"confirm\":\"yes\"}",
        "{\"confirm\":\"destroy everything\",\"x\":1}",
        "",
        "[]",
        "null",
    ] {
        let answer = place.change("/api/v1/kill", body);
        assert_eq!(answer.error(), (400, "bad-request".to_owned()), "{body}");
    }
    assert!(!kill_file_present(&database));
    let answer = place.change("/api/v1/kill", "{\"confirm\":\"destroy everything\"}");
    assert_eq!(answer.status, 202, "{}", answer.text());
    assert!(kill_file_present(&database));
    assert_eq!(place.asks().last(), Some(&Ask::Kill));
    let nobody = place.change("/api/v1/jobs/nobody/stop", "{}");
    assert_eq!(nobody.error(), (404, "not-found".to_owned()));
}

#[test]
fn no_reader_holds_up_a_wish_or_a_kill() {
    let place = Place::new(With::default());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (begun, has_begun) = std::sync::mpsc::channel();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let ended = Arc::new(Mutex::new(ended));
    // As many as may be, each of which reads for as long as this test lasts.
    for _ in 0..crate::web::READERS {
        let (desk, begun, ended) = (Arc::clone(&place.desk), begun.clone(), Arc::clone(&ended));
        runtime.spawn(async move {
            let read = move || {
                begun.send(()).unwrap();
                drop(ended.lock().map(|ended| ended.recv()));
            };
            desk.blocking(read).await.is_ok()
        });
    }
    for _ in 0..crate::web::READERS {
        has_begun.recv().unwrap();
    }
    let read = place.get("/api/v1/story", &[]);
    assert_eq!(read.error(), (503, "busy".to_owned()));
    let stop = place.change("/api/v1/jobs/train-0/stop", "{}");
    assert_eq!(stop.status, 202, "{}", stop.text());
    let kill = place.change("/api/v1/kill", "{\"confirm\":\"destroy everything\"}");
    assert_eq!(kill.status, 202, "{}", kill.text());
    assert_eq!(place.asks().last(), Some(&Ask::Kill));
    drop(end);
    runtime.shutdown_background();
}

#[test]
fn a_kill_promises_what_is_known() {
    let kill = |place: &Place| {
        let answer = place.change("/api/v1/kill", "{\"confirm\":\"destroy everything\"}");
        assert_eq!(answer.status, 202, "{}", answer.text());
        let database = place.directory.path().join("haggle.db");
        assert!(kill_file_present(&database));
        let answer = answer.json();
        let text = answer["text"].as_str().unwrap().to_owned();
        assert!(text.starts_with("spending is forbidden until"), "{text}");
        (text, answer["is_taken_up"].as_bool().unwrap())
    };
    let live = Place::new(With::default());
    let (text, taken_up) = kill(&live);
    assert!(
        taken_up && text.contains("everything of ours will be destroyed"),
        "{text}"
    );
    live.desk.ends();
    let (text, taken_up) = kill(&live);
    assert!(
        !taken_up && text.contains("is ending and destroys nothing"),
        "{text}"
    );
    let resumed = live.change("/api/v1/jobs/train-0/resume", "{}").json();
    assert_eq!(resumed["is_taken_up"], false);
    let dry = Place::new(With {
        dry: true,
        ..With::default()
    });
    let (text, taken_up) = kill(&dry);
    assert!(
        !taken_up && text.contains("runs dry and destroys nothing"),
        "{text}"
    );
    let unwritten = Place::new(With::default());
    let database = unwritten.directory.path().join("haggle.db");
    std::fs::rename(&database, database.with_extension("away")).unwrap();
    let (text, taken_up) = kill(&unwritten);
    assert!(!taken_up && text.contains("by a file alone"), "{text}");
    assert!(text.contains("`haggle kill` does"), "{text}");
}
