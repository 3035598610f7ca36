//! What happens in a run: callers, and what goes wrong.

use crate::rng::Rng;

/// How far the clock of a process is from true time at most, in milliseconds: half of what two clocks may differ.
pub const WORST_CLOCK_MS: i64 = zae_limiter_core::flight::MARGIN_MS / 2;

/// A request that holds a place while it works.
#[derive(Debug, Clone)]
pub struct Caller {
    /// When it comes, in milliseconds.
    pub at_ms: i64,
    /// In which process.
    pub process: usize,
    /// Whose place it needs.
    pub entity: usize,
    /// How long it works.
    pub work_ms: i64,
    /// The time to live of its place.
    pub ttl_ms: i64,
    /// How long it waits for a place; without, until it has one.
    pub patience_ms: Option<i64>,
}

/// Something that happens beside the callers.
#[derive(Debug, Clone)]
pub enum Incident {
    /// A process ends without giving anything back. Callers that come later find it running again.
    Crash(usize),
    /// A process does nothing for so many milliseconds.
    Freeze(usize, i64),
    /// The clock of a process is this far from true time from now on.
    Clock(usize, i64),
    /// The concurrency limit of an entity is this from now on.
    Limit(usize, u32),
    /// The table answers no request for so many milliseconds.
    Outage(i64),
}

/// How requests fare on their way, each as a chance in a thousand.
#[derive(Debug, Clone, Copy)]
pub struct Network {
    /// The request is lost.
    pub lost: u32,
    /// The table executes it, and the answer is lost.
    pub unheard: u32,
    /// The table refuses it because it is throttled.
    pub throttled: u32,
    /// It arrives much later, long after the caller has stopped waiting for the answer.
    pub late: u32,
}

/// A run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The seed that it was drawn from.
    pub seed: u64,
    /// The clocks of the processes at first: how far they are from true time, in milliseconds.
    pub clocks: Vec<i64>,
    /// The concurrency limits at first.
    pub limits: Vec<u32>,
    /// The callers.
    pub callers: Vec<Caller>,
    /// Everything else, with its time in milliseconds.
    pub incidents: Vec<(i64, Incident)>,
    /// The network.
    pub network: Network,
}

impl Plan {
    /// The plan of a seed.
    pub fn of(seed: u64) -> Self {
        let mut rng = Rng::of(seed, 0x0091_ace5);
        let processes = 1 + rng.index(5);
        let entities = 1 + rng.index(2);
        let clock = |rng: &mut Rng| rng.range(-WORST_CLOCK_MS, WORST_CLOCK_MS);
        let clocks = (0..processes).map(|_| clock(&mut rng)).collect();
        let limit = |rng: &mut Rng| if rng.chance(700) { rng.range(1, 4) } else { rng.range(1, 70) } as u32;
        let limits = (0..entities).map(|_| limit(&mut rng)).collect();
        let end_ms = rng.range(10_000, 300_000);
        let callers = (0..rng.range(5, 150)).map(|_| Caller {
            at_ms: rng.range(0, end_ms),
            process: rng.index(processes),
            entity: rng.index(entities),
            work_ms: if rng.chance(800) {
                rng.range(0, 8_000)
            } else {
                rng.range(0, 90_000)
            },
            ttl_ms: if rng.chance(700) {
                rng.range(5_000, 8_000)
            } else {
                rng.range(5_000, 60_000)
            },
            patience_ms: rng.chance(600).then(|| rng.range(0, 30_000)),
        });
        let callers = callers.collect();
        let mut incidents = Vec::new();
        for _ in 0..rng.range(0, 12) {
            let process = rng.index(processes);
            let incident = match rng.index(5) {
                0 => Incident::Crash(process),
                1 => Incident::Freeze(process, rng.range(1_000, 40_000)),
                2 => Incident::Clock(process, clock(&mut rng)),
                3 => Incident::Limit(rng.index(entities), limit(&mut rng)),
                _ => Incident::Outage(rng.range(500, 30_000)),
            };
            incidents.push((rng.range(0, end_ms), incident));
        }
        let is_bad = rng.chance(600);
        let rate = |rng: &mut Rng, most: i64| if is_bad { rng.range(0, most) as u32 } else { 0 };
        Self {
            seed,
            clocks,
            limits,
            callers,
            incidents,
            network: Network {
                lost: rate(&mut rng, 150),
                unheard: rate(&mut rng, 150),
                throttled: rate(&mut rng, 100),
                late: rate(&mut rng, 100),
            },
        }
    }
}
