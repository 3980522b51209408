//! Streams of events, much that is shown, and many that ask at once.

use super::*;

/// A stream of events, read as it comes.
struct Stream {
    lines: std::io::BufReader<TcpStream>,
    newest: u64,
}

impl Stream {
    fn open(place: &Place) -> Self {
        let mut stream = TcpStream::connect(place.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream
            .write_all(request("GET", "/api/v1/events", HOST, &[], "").as_bytes())
            .unwrap();
        Self {
            lines: std::io::BufReader::new(stream),
            newest: 0,
        }
    }

    /// The next event's number and age; `None`: there is none.
    fn news(&mut self) -> Option<(u64, u64)> {
        use std::io::BufRead as _;
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if let Some(data) = line.strip_prefix("data: ") {
                let data: serde_json::Value = serde_json::from_str(data.trim()).unwrap();
                return data["version"].as_u64().zip(data["age_seconds"].as_u64());
            }
        }
    }

    /// The age that is told with a number.
    fn age_of(&mut self, version: u64) -> u64 {
        loop {
            let (told, age) = self.news().unwrap();
            if told == version {
                return age;
            }
        }
    }

    /// The number of the next event that tells of something newer; `None`: there is none.
    fn next(&mut self) -> Option<u64> {
        loop {
            let (version, _) = self.news()?;
            if version > self.newest {
                self.newest = version;
                return Some(version);
            }
        }
    }
}

#[test]
fn events_say_for_how_long_no_tick_has_made_anything_newer() {
    let place = Place::new(With::default());
    let mut stream = Stream::open(&place);
    assert_eq!(stream.age_of(1), 0);
    place.clock.advance(Duration::from_secs(100));
    // Nobody sees from the number that the loop hangs, nor from what is told of a store that fails.
    assert_eq!(Stream::open(&place).age_of(1), 100);
    place
        .publisher
        .lock()
        .unwrap()
        .store_failed(Some(&StoreError::Full));
    assert_eq!(stream.age_of(2), 100);
    place.tick(&filled(1, 1));
    assert_eq!(stream.age_of(3), 0);
}

#[test]
fn each_publication_is_an_event_and_streams_are_so_many() {
    let place = Place::new(With::default());
    let mut streams: Vec<Stream> = (0..64).map(|_| Stream::open(&place)).collect();
    for stream in &mut streams {
        assert_eq!(stream.next(), Some(1));
    }
    let one_more = place.get("/api/v1/events", &[]);
    assert_eq!(one_more.error(), (503, "busy".to_owned()));
    // Others are served all the same.
    assert_eq!(place.get("/api/v1/state", &[]).status, 200);
    place.tick(&filled(2, 2));
    place
        .publisher
        .lock()
        .unwrap()
        .store_failed(Some(&StoreError::Full));
    for stream in &mut streams {
        let mut newest = stream.next().unwrap();
        if newest < 3 {
            newest = stream.next().unwrap();
        }
        assert_eq!(newest, 3, "who lags sees the newest");
    }
    let state = place.get("/api/v1/state", &[]).json();
    assert!(
        state["trouble"][0].as_str().unwrap().contains("disk"),
        "{state}"
    );
    place.publisher.lock().unwrap().store_failed(None);
    let state = place.get("/api/v1/state", &[]).json();
    assert_eq!(state["trouble"].as_array().unwrap().len(), 1, "{state}");
}

#[test]
fn a_hundred_jobs_and_three_hundred_instances_are_light() {
    let place = Place::new(With::default());
    place.tick(&filled(100, 300));
    let gzip = ["accept-encoding: gzip"];
    let mut bytes = place.get("/api/v1/state", &gzip).body.len();
    for file in [
        "",
        "page/style.css",
        "page/app.js",
        "page/api.js",
        "page/dom.js",
        "page/board.js",
        "page/job.js",
        "page/lists.js",
        "page/chart.js",
        "page/icon.svg",
    ] {
        let answer = place.get(&format!("/{file}"), &gzip);
        assert_eq!(answer.status, 200, "{file}");
        bytes += answer.body.len();
    }
    assert!(bytes < 150_000, "{bytes} bytes");
    // Whatever there is, so much is sent and the rest is counted.
    let world = filled(600, 1200);
    let jobs: Vec<&Job> = world.jobs.iter().map(|job| &**job).collect();
    let report = Report {
        limits: project(NOW, &world.config, &jobs, &world.state, Purse::default()),
        ..Report::default()
    };
    place.publish(&world, &Plan::default(), &report);
    let state = place.get("/api/v1/state", &[]).json();
    assert_eq!(state["jobs"].as_array().unwrap().len(), 500);
    assert_eq!(state["jobs_left_out"], 100);
    assert_eq!(state["instances"].as_array().unwrap().len(), 1000);
    assert_eq!(state["instances_left_out"], 200);
    assert_eq!(state["limits"].as_array().unwrap().len(), 60);
}

#[test]
fn neither_many_requests_nor_hostile_clients_hold_up_a_publication() {
    let place = Place::new(With::default());
    let mut streams: Vec<Stream> = (0..50).map(|_| Stream::open(&place)).collect();
    for stream in &mut streams {
        stream.next().unwrap();
    }
    // Some say nothing, some half a request, some ask for much and read none of it.
    let hostile: Vec<TcpStream> = (0..60)
        .map(|number| {
            let mut stream = TcpStream::connect(place.address).unwrap();
            let whole =
                request("GET", "/api/v1/state", HOST, &[], "").replace("connection: close\r\n", "");
            let said = match number % 3 {
                0 => String::new(),
                1 => {
                    "POST /api/v1/kill HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 4000\r\n\r\n{"
                        .to_owned()
                }
                _ => whole.repeat(200),
            };
            let _ = stream.set_nonblocking(true);
            let _ = stream.write(said.as_bytes());
            stream
        })
        .collect();
    let world = filled(100, 300);
    let worst = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            (0..100)
                .map(|_| place.get("/api/v1/state", &[]).status)
                .collect::<BTreeSet<_>>()
        });
        let clock = crate::clock::SystemClock::new();
        let begun = || crate::ports::Clock::monotonic(&clock);
        let mut worst = Duration::ZERO;
        for _ in 0..20 {
            let before = begun();
            place.tick(&world);
            worst = worst.max(begun().since(before));
        }
        assert_eq!(asking.join().unwrap(), BTreeSet::from([200]));
        worst
    });
    // Unoptimised, a publication of so much takes some tens of milliseconds by itself.
    assert!(
        worst < Duration::from_secs(2),
        "a tick took {worst:?} to publish"
    );
    for stream in &mut streams {
        while stream.next().unwrap() < 21 {}
    }
    drop(hostile);
    assert!(place.desk.published().is_ok());
}
