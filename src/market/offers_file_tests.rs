//! Small files of offers, right and wrong.

use super::*;
use proptest::prelude::*;

const OPENS: Time = Time(1_795_478_400_000);
const HEADER: &str = "ts,id,gpu_name,num_gpus,dph_total,gpu_ram,dlperf,dlperf_per_dphtotal,\
    reliability2,geolocation,cuda_max_good,inet_down,inet_up,disk_space,static_ip,min_bid,\
    cpu_cores_effective,cpu_ram,hosting_type";
const LINE: &str = "2026-01-02T03:04:05+00:00,71,RTX 4090,2,0.8,24564,170.5,213.1,0.995,\
    \"Oslo, NO\",12.8,900,400.5,512,True,0.6,32,128000,1";

fn load_text(text: &str) -> Result<Vec<RawOffer>, OffersFileError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    load(file.path(), OPENS)
}

fn error(text: &str) -> String {
    let error = load_text(text).unwrap_err();
    let shown = error.to_string();
    shown.replace(&error.path.display().to_string(), "F")
}

#[test]
fn a_line_of_csv_is_read_and_the_rest_is_derived() {
    let offers = load_text(&format!("{HEADER}\n{LINE}\n")).unwrap();
    let [offer] = offers.as_slice() else {
        panic!("{offers:?}")
    };
    assert_eq!((offer.id, offer.machine_id, offer.host_id), (71, 71, 71));
    assert_eq!(
        (offer.num_gpus, offer.gpu_ram, offer.gpu_total_ram),
        (2, 24564, 49128)
    );
    assert_eq!((offer.gpu_frac, offer.gpu_ids.clone()), (1.0, vec![0, 1]));
    assert_eq!((offer.compute_cap, offer.cuda_max_good), (890, 12.8));
    assert!((offer.dph_base - (0.8 - 0.15 * 8.0 / 720.0)).abs() < 1e-12);
    assert!((offer.dph_total - offer.dph_base - offer.storage_total_cost).abs() < 1e-12);
    assert_eq!(
        (offer.min_bid, offer.storage_cost, offer.inet_up_cost),
        (0.6, 0.15, 0.003)
    );
    assert_eq!(
        (offer.inet_down, offer.inet_up, offer.disk_space),
        (900.0, 400.5, 512.0)
    );
    assert_eq!((offer.cpu_cores, offer.cpu_ram), (Some(32), 128_000));
    assert!(offer.static_ip && offer.rentable && !offer.rented && !offer.is_bid);
    assert_eq!((&*offer.verification, offer.hosting_type), ("verified", 1));
    assert_eq!(offer.geolocation.as_deref(), Some("Oslo, NO"));
    assert_eq!(offer.country_code.as_deref(), Some("NO"));
    assert_eq!(offer.end_date, OPENS.epoch_seconds() + 30.0 * 86_400.0);
    assert_eq!(
        (&*offer.driver_version, offer.driver_vers),
        ("570.124.06", 570_124_006)
    );
    assert_eq!(
        (offer.reliability, offer.dlperf_per_dphtotal),
        (0.995, 213.1)
    );
}

#[test]
fn json_in_both_forms_is_taken_as_it_is_said() {
    let row = json!({
        "id": 9, "machine_id": 5, "host_id": 4, "num_gpus": 1, "gpu_name": "H100 SXM",
        "gpu_ram": 81559.0, "dph_base": 2.0, "dph_total": 2.5, "min_bid": 1.0,
        "storage_cost": 0.9, "gpu_frac": 0.25, "gpu_ids": [208_077], "verification": "unverified",
        "duration": 1000.0, "end_date": 12.0, "static_ip": 1, "driver_version": "535.86.05",
        "os_version": 24.04, "bundled_results": null, "made_up": {"a": 1}, "rentable": false,
    });
    let wrapped = load_text(&json!({ "offers": [row.clone()] }).to_string()).unwrap();
    let bare = load_text(&format!(" \n{}", json!([row]))).unwrap();
    assert_eq!(wrapped, bare);
    let offer = &bare[0];
    assert_eq!(
        (offer.machine_id, offer.host_id, offer.gpu_ram),
        (5, 4, 81559)
    );
    assert_eq!((offer.dph_base, offer.dph_total), (2.0, 2.5));
    assert_eq!(
        (offer.gpu_frac, offer.gpu_ids.clone()),
        (0.25, vec![208_077])
    );
    assert_eq!((&*offer.verification, offer.vericode), ("unverified", 0));
    assert_eq!(
        offer.end_date,
        OPENS.epoch_seconds() + 1000.0,
        "counted from the opening"
    );
    assert_eq!(
        (offer.driver_vers, &*offer.os_version),
        (535_086_005, "24.04")
    );
    assert!(offer.static_ip && !offer.rentable);
}

#[test]
fn what_is_wrong_is_named_by_line_and_column_with_what_is_right() {
    let csv = |old: &str, new: &str| {
        error(&format!(
            "{HEADER}\n{LINE}\n{}\n",
            LINE.replace(",71,", ",72,").replace(old, new)
        ))
    };
    assert!(
        csv(",72,", ",71,")
            .starts_with("F, line 3, column id: offer 71 is there already, at line 2")
    );
    assert_eq!(
        csv(",72,", ",x,"),
        "F, line 3, column id: \"x\" is not a whole number such as 29117402"
    );
    assert_eq!(
        csv(",24564,", ",24,"),
        "F, line 3, column gpu_ram: 24 is not the memory of one GPU in MB, such as 24564"
    );
    assert!(csv(",24564,", ",,").contains("column gpu_ram: it is missing; right is the memory"));
    assert!(csv(",2,0.8,", ",0,0.8,").contains("column num_gpus: 0 is not a number of GPUs"));
    assert!(csv(",2,0.8,", ",1.5,0.8,").contains("column num_gpus: 1.5 is not a whole number"));
    assert!(csv(",0.8,", ",0.001,").contains("column dph_total: it leaves nothing for the GPUs"));
    assert!(csv(",0.8,", ",-1,").contains("column dph_total: -1 is not a price"));
    assert!(csv(",0.8,", ",NaN,").contains("column dph_total: \"NaN\" is not a price"));
    assert!(csv(",0.995,", ",99.5,").contains("column reliability2: 99.5 is not a share"));
    assert!(csv(",900,", ",fast,").contains("column inet_down: \"fast\" is not a number"));
    assert!(csv(",True,", ",maybe,").contains("column static_ip: \"maybe\" is not true or false"));
    assert_eq!(
        csv(",128000,1", ",128000"),
        "F, line 3: it has 18 values; the header has 19"
    );
    assert!(
        error("id,gpu_name\n1,A10\n")
            .starts_with("F, line 1: the header lacks num_gpus, gpu_ram, min_bid")
    );
    assert_eq!(
        error(&format!("{HEADER}\n")),
        "F: there are no offers in it"
    );
    assert!(error("[1]").contains("offer 1 is no JSON object"));
    assert!(error("{\"rows\":[]}").contains("no array `offers`"));
    assert!(error("[{]").contains("it is no JSON: "));
    let bid = json!([{"id": 1, "is_bid": true}]).to_string();
    assert!(error(&bid).contains("offer 1, field is_bid: the row is of a bid search"));
    assert!(load(Path::new("/nonexistent/offers.csv"), OPENS).is_err());
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in ".{0,200}") {
        let _ = load_text(&text);
        let _ = load_text(&format!("{HEADER}\n{text}"));
        let _ = load_text(&format!("[{{\"id\":1,{text}}}]"));
    }
}
