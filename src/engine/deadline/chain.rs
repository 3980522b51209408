//! How long spells of there and not there last: a Markov chain over the side and its age.

/// Last age of each class but the last, in ticks: spells that have lasted, last.
const AGE_ENDS: [u32; AGE_CLASSES - 1] = [1, 2, 6, 18, 72];

/// How many classes of age there are on each side.
pub const AGE_CLASSES: usize = 6;

/// The class of an age in ticks.
pub fn age_class(age: u32) -> usize {
    AGE_ENDS.iter().take_while(|end| age > **end).count()
}

/// What is seen of a chain at a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Interruptible capacity is there.
    pub up: bool,
    /// Class of the age of the spell.
    pub class: usize,
}

impl Seen {
    /// What has a number.
    pub fn at(index: usize) -> Self {
        Self {
            up: index < AGE_CLASSES,
            class: index % AGE_CLASSES,
        }
    }

    /// A number for it, below twice [`AGE_CLASSES`].
    pub fn index(self) -> usize {
        self.class + if self.up { 0 } else { AGE_CLASSES }
    }
}

/// What was counted of spells, by [`Seen::index`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    /// Ticks after which the spell ended.
    pub ends: [f64; 2 * AGE_CLASSES],
    /// Ticks after which it went on, in the same class of age.
    pub stays: [f64; 2 * AGE_CLASSES],
    /// Ticks after which it went on, in the next class.
    pub ages: [f64; 2 * AGE_CLASSES],
}

impl Counts {
    /// Counts a series, of which the first spell has the age that is seen of it.
    pub fn of(series: &[bool]) -> Self {
        let mut counts = Self::default();
        counts.add(series, 0..series.len());
        counts
    }

    /// Counts the transitions out of a range of ticks of a series, ages being reckoned from the
    /// series' beginning.
    pub fn add(&mut self, series: &[bool], range: std::ops::Range<usize>) {
        let mut age = 0;
        for (at, pair) in series.windows(2).enumerate() {
            age = if at > 0 && series[at - 1] == pair[0] {
                age + 1
            } else {
                1
            };
            if range.contains(&at) {
                let class = age_class(age);
                let index = Seen { up: pair[0], class }.index();
                if pair[0] != pair[1] {
                    self.ends[index] += 1.0;
                } else if age_class(age + 1) == class {
                    self.stays[index] += 1.0;
                } else {
                    self.ages[index] += 1.0;
                }
            }
        }
    }

    /// Adds what was counted elsewhere.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in [
            (&mut self.ends, &other.ends),
            (&mut self.stays, &other.stays),
            (&mut self.ages, &other.ages),
        ] {
            for (mine, theirs) in mine.iter_mut().zip(theirs) {
                *mine += theirs;
            }
        }
    }

    /// The chain of these counts, each class drawn towards `prior` with the weight of so many ticks.
    pub fn chain(&self, prior: &Chain, weight: f64) -> Chain {
        let mut chain = prior.clone();
        for index in 0..2 * AGE_CLASSES {
            let (ends, stays, ages) = (self.ends[index], self.stays[index], self.ages[index]);
            // Without counts nothing is moved, not by a rounding either.
            let drawn = |count: f64, of: f64, towards: f64| {
                towards + (count - of * towards) / (of + weight)
            };
            chain.ends[index] = drawn(ends, ends + stays + ages, prior.ends[index]);
            chain.ages[index] = drawn(ages, stays + ages, prior.ages[index]);
        }
        chain.sane()
    }
}

/// Probabilities from one tick to the next, by [`Seen::index`].
#[derive(Clone, Debug, PartialEq)]
pub struct Chain {
    /// The spell ends.
    pub ends: [f64; 2 * AGE_CLASSES],
    /// A spell that goes on comes into the next class of age.
    pub ages: [f64; 2 * AGE_CLASSES],
}

impl Chain {
    /// A chain whose spells end with the given probability a tick, whatever their age; within a
    /// class, ages pass at the pace of a spell that lasts through it.
    pub fn steady(up_ends: f64, down_ends: f64) -> Self {
        let mut chain = Self {
            ends: [up_ends; 2 * AGE_CLASSES],
            ages: [0.0; 2 * AGE_CLASSES],
        };
        let mut before = 0;
        for (class, end) in AGE_ENDS.iter().enumerate() {
            let pace = 1.0 / f64::from(end - before);
            before = *end;
            chain.ages[class] = pace;
            chain.ages[class + AGE_CLASSES] = pace;
        }
        chain.ends[AGE_CLASSES..].fill(down_ends);
        chain.sane()
    }

    /// A chain whose spells end with the probability 1 / (age + `scale`) a tick, up and down: a spell
    /// that has lasted is expected to last as long again.
    pub fn lasting(scale: f64) -> Self {
        let mut chain = Self::steady(0.5, 0.5);
        let mut first = 1;
        for class in 0..AGE_CLASSES {
            // The last class is open; half as much again as its beginning stands for it.
            let last = AGE_ENDS.get(class).copied().unwrap_or(first * 2);
            let age = f64::from(first + last) / 2.0;
            first = last + 1;
            chain.ends[class] = 1.0 / (age + scale);
            chain.ends[class + AGE_CLASSES] = 1.0 / (age + scale);
        }
        chain.sane()
    }

    /// This chain with spells of being there that end `factor` times as readily once they are over
    /// three hours old; from one hour on, by its root.
    pub fn fleeting(&self, factor: f64) -> Self {
        let mut chain = self.clone();
        chain.ends[3] *= factor.sqrt();
        for end in &mut chain.ends[4..AGE_CLASSES] {
            *end *= factor;
        }
        chain.sane()
    }

    /// How likely it is that a spell goes on, or ends, when it was seen as it was.
    pub fn likelihood(&self, seen: Seen, ends: bool) -> f64 {
        let end = self.ends[seen.index()];
        if ends { end } else { 1.0 - end }
    }

    /// Nothing is certain, and the last class has no next.
    fn sane(mut self) -> Self {
        for end in &mut self.ends {
            *end = end.clamp(1e-4, 1.0 - 1e-4);
        }
        for age in &mut self.ages {
            *age = age.clamp(0.0, 1.0);
        }
        self.ages[AGE_CLASSES - 1] = 0.0;
        self.ages[2 * AGE_CLASSES - 1] = 0.0;
        self
    }
}
