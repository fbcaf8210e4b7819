//! Who is measured when.

/// The order of a number of rounds: there and back again, A B B A, so that a machine which grows slower or faster
/// grows so for all alike.
#[derive(Debug, Clone)]
pub struct Order {
    subjects: usize,
    rounds: u32,
}

impl Order {
    /// So many subjects, each measured so many times.
    pub fn abba(subjects: usize, rounds: u32) -> Self {
        Self { subjects, rounds }
    }

    /// Round, from 1, and subject, from 0, one after the other.
    pub fn turns(&self) -> impl Iterator<Item = (u32, usize)> + use<> {
        let subjects = self.subjects;
        (1..=self.rounds).flat_map(move |round| {
            (0..subjects).map(move |turn| {
                let is_there = round % 2 == 1;
                (round, if is_there { turn } else { subjects - 1 - turn })
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_second_round_runs_backwards() {
        let turns: Vec<_> = Order::abba(2, 3).turns().collect();
        assert_eq!(turns, [(1, 0), (1, 1), (2, 1), (2, 0), (3, 0), (3, 1)]);
    }

    #[test]
    fn each_of_two_has_the_same_mean_place_after_two_rounds() {
        let places = |subject: usize| -> usize {
            let turns = Order::abba(2, 2).turns().enumerate();
            turns
                .filter(|(_, turn)| turn.1 == subject)
                .map(|(place, _)| place)
                .sum()
        };
        assert_eq!(places(0), places(1));
    }
}
