//! The GPU models of a generated market, and what is known of models by name.

/// A GPU model and its market.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Model {
    /// As the marketplace spells it.
    pub(crate) name: &'static str,
    /// How many offers of it a market of about a thousand holds.
    pub(crate) weight: u32,
    /// On-demand $/GPU-hour: 10th percentile, median, 90th percentile.
    pub(crate) price: [f64; 3],
    /// Floor over on-demand: the same percentiles.
    pub(crate) floor: [f64; 3],
    /// MB per GPU.
    pub(crate) ram_mb: u32,
    /// The marketplace's deep-learning score per GPU.
    pub(crate) dlperf: f64,
    /// TFLOPs in single precision.
    pub(crate) tflops: f64,
    /// Memory bandwidth in GB/s.
    pub(crate) mem_gb_s: f64,
    /// Power limit in W.
    pub(crate) watts: f64,
}

const fn model(
    name: &'static str,
    weight: u32,
    price: [f64; 3],
    floor: [f64; 3],
    ram_mb: u32,
    dlperf: f64,
    [tflops, mem_gb_s, watts]: [f64; 3],
) -> Model {
    Model {
        name,
        weight,
        price,
        floor,
        ram_mb,
        dlperf,
        tflops,
        mem_gb_s,
        watts,
    }
}

/// The models, with figures fitted to published observations of the marketplace in 2026: how many
/// offers, the spread of on-demand prices and of floors, and the score. Compute, bandwidth and
/// power are the vendors' data sheets'.
// One of the prices happens to look like a constant of mathematics.
#[allow(clippy::approx_constant)]
#[rustfmt::skip]
pub(crate) const MODELS: &[Model] = &[
    model("RTX 4090", 106, [0.315, 0.364, 0.601], [0.57, 0.86, 1.04], 24564, 87.0, [82.6, 1008.0, 450.0]),
    model("RTX 5090", 99, [0.347, 0.441, 0.8], [0.5, 0.87, 1.0], 32607, 161.0, [104.8, 1792.0, 575.0]),
    model("RTX 3090", 72, [0.127, 0.169, 0.292], [0.5, 0.91, 1.0], 24576, 44.0, [35.6, 936.0, 350.0]),
    model("RTX 5060 Ti", 70, [0.081, 0.121, 0.185], [0.6, 0.83, 0.99], 16311, 38.0, [23.7, 448.0, 180.0]),
    model("RTX 3060", 62, [0.052, 0.064, 0.107], [0.66, 0.88, 0.99], 12288, 12.0, [12.7, 360.0, 170.0]),
    model("RTX PRO 6000 WS", 43, [1.146, 1.402, 1.655], [0.56, 0.82, 1.0], 97887, 283.0, [126.0, 1792.0, 600.0]),
    model("RTX 5080", 41, [0.147, 0.175, 0.242], [0.65, 0.97, 1.0], 16303, 72.0, [56.3, 960.0, 360.0]),
    model("RTX A4000", 36, [0.094, 0.12, 0.167], [0.55, 0.95, 0.99], 16376, 21.0, [19.2, 448.0, 140.0]),
    model("RTX 5070 Ti", 36, [0.12, 0.135, 0.225], [0.66, 0.78, 0.99], 16303, 61.0, [43.9, 896.0, 300.0]),
    model("RTX 3080", 34, [0.081, 0.108, 0.162], [0.54, 0.9, 1.0], 10240, 27.0, [29.8, 760.0, 320.0]),
    model("RTX 3080 Ti", 33, [0.094, 0.121, 0.173], [0.71, 0.98, 1.0], 12288, 33.0, [34.1, 912.0, 350.0]),
    model("RTX 3070", 32, [0.065, 0.081, 0.134], [0.69, 0.98, 1.58], 8192, 16.0, [20.3, 448.0, 220.0]),
    model("RTX 2080 Ti", 32, [0.07, 0.081, 0.134], [0.67, 0.93, 1.0], 11264, 9.0, [13.4, 616.0, 250.0]),
    model("A100 SXM4", 32, [0.684, 1.174, 1.653], [0.4, 0.78, 1.0], 81920, 117.0, [19.5, 2039.0, 400.0]),
    model("RTX PRO 6000 S", 32, [1.347, 1.601, 1.735], [0.53, 0.63, 0.99], 97887, 279.0, [120.0, 1597.0, 600.0]),
    model("RTX 4080S", 28, [0.127, 0.15, 0.265], [0.59, 0.96, 1.0], 16376, 55.0, [52.2, 736.0, 320.0]),
    model("RTX 4070S", 27, [0.081, 0.088, 0.108], [0.69, 0.98, 1.0], 12282, 34.0, [35.5, 504.0, 220.0]),
    model("Tesla V100", 27, [0.116, 0.148, 0.26], [0.65, 0.9, 0.99], 32768, 26.0, [15.7, 900.0, 300.0]),
    model("A100 PCIE", 26, [0.721, 0.867, 1.09], [0.16, 1.0, 1.0], 61440, 95.0, [19.5, 1555.0, 250.0]),
    model("RTX PRO 4000", 25, [0.215, 0.265, 0.361], [0.73, 0.95, 1.33], 24467, 66.0, [46.0, 672.0, 140.0]),
    model("RTX 4070", 23, [0.075, 0.083, 0.108], [0.5, 0.98, 1.0], 12282, 30.0, [29.1, 504.0, 200.0]),
    model("RTX 5070", 23, [0.103, 0.121, 0.169], [0.63, 0.99, 1.47], 12227, 50.0, [30.9, 672.0, 250.0]),
    model("RTX 4060 Ti", 22, [0.074, 0.101, 0.135], [0.67, 0.78, 0.99], 16380, 22.0, [22.1, 288.0, 160.0]),
    model("RTX 3060 Ti", 21, [0.062, 0.069, 0.116], [0.5, 0.78, 0.97], 8192, 14.0, [16.2, 448.0, 200.0]),
    model("RTX 4070S Ti", 20, [0.123, 0.145, 0.242], [0.4, 0.82, 0.99], 16376, 51.0, [44.1, 672.0, 285.0]),
    model("GTX 1660 S", 18, [0.047, 0.057, 0.067], [0.73, 0.84, 0.91], 6144, 2.0, [5.0, 336.0, 125.0]),
    model("GTX 1080 Ti", 17, [0.061, 0.064, 0.066], [0.64, 0.81, 0.91], 11264, 5.0, [11.3, 484.0, 250.0]),
    model("RTX 4070 Ti", 17, [0.088, 0.094, 0.193], [0.85, 0.97, 0.99], 12282, 36.0, [40.1, 504.0, 285.0]),
    model("RTX A5000", 17, [0.219, 0.231, 0.318], [0.27, 0.95, 0.99], 24564, 35.0, [27.8, 768.0, 230.0]),
    model("RTX PRO 5000", 16, [0.561, 0.646, 0.972], [0.17, 0.53, 1.0], 48935, 165.0, [73.0, 1344.0, 300.0]),
    model("H100 SXM", 13, [1.734, 3.07, 7.194], [0.3, 0.56, 1.0], 81559, 300.0, [67.0, 3350.0, 700.0]),
    model("RTX 4060", 12, [0.06, 0.064, 0.104], [0.5, 0.89, 0.98], 8188, 16.0, [15.1, 272.0, 115.0]),
];

/// Compute capability × 100 of models by the marketplace's name, as the vendor documents it.
/// `None` for a model that is not in the table.
pub fn compute_cap(name: &str) -> Option<u32> {
    let cap = match name {
        "B200" | "GB200" => 1000,
        "B300" => 1030,
        "H100 SXM" | "H100 NVL" | "H100 PCIE" | "H200" | "H200 NVL" | "GH200 SXM" => 900,
        "L4" | "L40" | "L40S" => 890,
        "A100 SXM4" | "A100 PCIE" | "A100X" | "A800 PCIE" | "A30" => 800,
        "A10" | "A10G" | "A16" | "A40" | "A2" | "RTX A2000" | "RTX A4000" | "RTX A4500"
        | "RTX A5000" | "RTX A6000" => 860,
        "Tesla V100" | "Titan V" => 700,
        "Tesla T4" | "Titan RTX" | "Q RTX 4000" | "Q RTX 5000" | "Q RTX 6000" | "Q RTX 8000" => 750,
        "Tesla P100" => 600,
        "Tesla P40" | "Tesla P4" | "Titan X" | "Titan Xp" | "Quadro P4000" | "Quadro P5000"
        | "Quadro P6000" => 610,
        _ => by_series(name)?,
    };
    Some(cap)
}

/// The series of consumer and workstation cards, told by the first digits of their number.
fn by_series(name: &str) -> Option<u32> {
    let ada = |rest: &str| rest.ends_with("Ada") || rest.ends_with("ADA");
    if let Some(rest) = name.strip_prefix("RTX PRO ") {
        return rest
            .starts_with(|c: char| c.is_ascii_digit())
            .then_some(1200);
    }
    if let Some(rest) = name.strip_prefix("RTX ") {
        if ada(rest) {
            return Some(890);
        }
        return match rest.get(..2)? {
            "50" => Some(1200),
            "40" => Some(890),
            "30" => Some(860),
            "20" => Some(750),
            _ => None,
        };
    }
    let rest = name.strip_prefix("GTX ")?;
    match rest.get(..2)? {
        "16" => Some(750),
        "10" => Some(610),
        "95" | "96" | "97" | "98" => Some(520),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_model_has_a_compute_capability_and_rising_prices() {
        for model in MODELS {
            assert!(compute_cap(model.name).is_some(), "{}", model.name);
            assert!(
                model.price.is_sorted() && model.floor.is_sorted(),
                "{}",
                model.name
            );
        }
    }

    #[test]
    fn capabilities_are_the_vendors() {
        assert_eq!(compute_cap("RTX 4070S Ti"), Some(890));
        assert_eq!(compute_cap("RTX 5060 Ti"), Some(1200));
        assert_eq!(compute_cap("RTX PRO 6000 WS"), Some(1200));
        assert_eq!(compute_cap("RTX 6000Ada"), Some(890));
        assert_eq!(compute_cap("GTX 1080 Ti"), Some(610));
        assert_eq!(compute_cap("RX 7900 XTX"), None);
        assert_eq!(compute_cap("RTX é"), None);
    }
}
