//! Rows of a large search's answer, shared by benchmarks.

use std::fmt::Write as _;

const MODELS: [&str; 8] = [
    "RTX 4090",
    "RTX 3090",
    "H100 SXM",
    "A100 SXM4",
    "RTX 5090",
    "L40S",
    "RTX A6000",
    "H200",
];

/// One row with the fields that the marketplace documents, those that we do not read among them.
fn row(number: u64, out: &mut String) {
    let gpus = 1 << (number % 4);
    let price = 0.1 + (number % 977) as f64 * 0.001234567;
    let model = MODELS[(number % 8) as usize];
    let id = 29_000_000 + number;
    write!(
        out,
        r#"{{"id":{id},"ask_contract_id":{id},"bundle_id":{bundle},"bundled_results":null,"machine_id":{machine},"host_id":{host},"num_gpus":{gpus},"gpu_frac":0.25,"gpu_ids":[0,1],"gpu_name":"{model}","gpu_arch":"nvidia","gpu_ram":24564,"gpu_total_ram":49128,"gpu_lanes":16,"gpu_mem_bw":856.4,"gpu_max_power":450.0,"gpu_max_temp":91.0,"gpu_display_active":false,"bw_nvlink":0.0,"compute_cap":890,"cuda_max_good":12.8,"driver_version":"570.124.06","driver_vers":570124006,"cpu_name":"AMD EPYC 7763 64-Core Processor","cpu_arch":"amd64","cpu_ghz":2.45,"cpu_cores":96,"cpu_cores_effective":24.0,"cpu_ram":515800,"has_avx":1,"disk_space":611.2734375,"disk_bw":3120.125,"disk_name":"SAMSUNG MZQL23T8HCLS-00A07","inet_up":742.1,"inet_down":911.6,"inet_up_cost":0.0039,"inet_down_cost":0.0020,"direct_port_count":249,"static_ip":true,"public_ipaddr":"203.0.113.9 ","pci_gen":4.0,"pcie_bw":23.4,"mobo_name":"ROMED8-2T","os_version":"22.04","storage_cost":0.18,"storage_total_cost":0.006,"dph_base":{price},"dph_total":{total},"min_bid":{bid},"is_bid":false,"credit_discount_max":0.4,"discount_rate":0.0,"discounted_hourly":0.0,"discounted_dph_total":{total},"vram_costperhour":0.0000068,"dlperf":96.4{number},"dlperf_per_dphtotal":573.8095,"total_flops":82.6,"flops_per_dphtotal":491.7,"score":311.2,"reliability":0.9963,"reliability2":0.9963,"reliability_mult":0.99,"verification":"verified","vericode":1,"hosting_type":0,"external":false,"rentable":true,"rented":false,"geolocation":"Oslo, NO","geolocode":1234,"country_code":"NO","start_date":1795100000.5,"end_date":1798990000.0,"duration":3486400.123456,"vms_enabled":false,"is_vm_deverified":false,"resource_type":"gpu","avail_vol_ask_id":null,"avail_vol_dph":null,"pending_count":0,"rn":{number}}}"#,
        bundle = 884_120_000 + number,
        machine = 40_000 + number / 2,
        host = 91_000 + number % 300,
        total = price + 0.006,
        bid = price * 0.6,
    )
    .expect("writing to a string");
}

/// So many rows, parted by commas.
pub(crate) fn rows(count: u64) -> String {
    let mut out = String::new();
    for number in 0..count {
        if number > 0 {
            out.push(',');
        }
        row(number, &mut out);
    }
    out
}
