//! Receivers of every kind that fail at random, and one whose address is gone.

use simulation::receivers;

use crate::with_scene;

#[test]
fn nothing_is_lost_told_under_another_id_or_out_of_order_whatever_receivers_do() {
    with_scene(|scene| {
        let mut all = receivers::Post::default();
        for seed in 0..6 {
            let post = receivers::run(scene, 5, 35, seed);
            assert!(post.violations.is_empty(), "seed {seed}: {:#?}", post.violations);
            all.notices += post.notices;
            all.failed += post.failed;
            all.incidents.0 += post.incidents.0;
            all.incidents.1 += post.incidents.1;
        }
        // There was something to tell, and something went wrong with it.
        assert!(all.notices > 60 && all.failed > 200 && all.incidents.0 > 5 && all.incidents.1 > 20, "{all:?}");
    });
}
