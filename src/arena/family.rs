//! Kinds of markets.

use crate::market::MarketOptions;
use crate::types::money::Money;
use crate::types::time::Time;

/// A kind of market.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// Rivals and hosts act a quarter as often as observed.
    Calm,
    /// As observed.
    Usual,
    /// Rivals, takers and hosts act four times as often as observed.
    Churning,
    /// Twelve times as often.
    Hostile,
    /// A fifth of the machines.
    Scarce,
    /// Floors are close to the on-demand price.
    CheapOnDemand,
}

impl Family {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Calm,
        Self::Usual,
        Self::Churning,
        Self::Hostile,
        Self::Scarce,
        Self::CheapOnDemand,
    ];

    /// Its name, as arguments and results have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Usual => "usual",
            Self::Churning => "churning",
            Self::Hostile => "hostile",
            Self::Scarce => "scarce",
            Self::CheapOnDemand => "cheap-on-demand",
        }
    }

    /// The family of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.as_str() == name)
    }

    /// The market of a seed.
    pub fn options(self, seed: u64, start: Time) -> MarketOptions {
        let usual = MarketOptions {
            seed,
            start,
            balance: Money::dollars(10_000),
            charge_decimals: 9,
            machines: Some(240),
            ..MarketOptions::default()
        };
        match self {
            Self::Calm => MarketOptions {
                intensity: 0.25,
                ..usual
            },
            Self::Usual => usual,
            Self::Churning => MarketOptions {
                intensity: 4.0,
                ..usual
            },
            Self::Hostile => MarketOptions {
                intensity: 12.0,
                ..usual
            },
            Self::Scarce => MarketOptions {
                machines: Some(48),
                ..usual
            },
            Self::CheapOnDemand => MarketOptions {
                floors: 1.2,
                ..usual
            },
        }
    }
}
