//! How many requests of one connection are queued, and who waits to queue one more (HTTP/2 streams); by lane, so that one that is full
//! holds up no others.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::task::Waker;

use crate::sync::lock;

pub(crate) struct Places {
    /// In each lane.
    most: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Lanes in which there are some, and how many.
    taken: Vec<(u64, usize)>,
    /// By turn, for which lane; one that is reset gives its turn up.
    waiting: BTreeMap<u64, (u64, Waker)>,
    next_turn: u64,
}

impl Places {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, state: Mutex::default() }
    }

    /// Takes a place for one queued request. False: `waker` will be woken.
    pub(crate) fn enter(&self, lane: u64, turn: &mut Option<u64>, waker: &Waker) -> bool {
        let mut state = lock(&self.state);
        let State { taken, waiting, next_turn } = &mut *state;
        let admitted = match taken.iter_mut().find(|(in_lane, _)| *in_lane == lane) {
            Some((_, taken)) if *taken >= self.most => false,
            Some((_, taken)) => {
                *taken += 1;
                true
            }
            None => {
                taken.push((lane, 1));
                true
            }
        };
        if !admitted {
            let turn = *turn.get_or_insert_with(|| {
                *next_turn += 1;
                *next_turn
            });
            waiting.insert(turn, (lane, waker.clone()));
        } else if let Some(turn) = turn.take() {
            waiting.remove(&turn);
        }
        admitted
    }

    pub(crate) fn give_up_turn(&self, turn: u64) {
        lock(&self.state).waiting.remove(&turn);
    }

    pub(crate) fn leave(&self, lane: u64) {
        let waiting: Vec<_> = {
            let mut state = lock(&self.state);
            if let Some(at) = state.taken.iter().position(|(in_lane, _)| *in_lane == lane) {
                state.taken[at].1 -= 1;
                if state.taken[at].1 == 0 {
                    state.taken.swap_remove(at);
                }
            }
            // All of the lane: some may have been reset meanwhile, and would swallow the one wake-up.
            state.waiting.extract_if(.., |_, (of_lane, _)| *of_lane == lane).collect()
        };
        for (_, (_, waker)) in waiting {
            waker.wake();
        }
    }
}
