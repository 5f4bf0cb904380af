//! The conformance suite of the stores of code state. Each case runs on SQLite and on Redis as a
//! separate test, and a randomized one compares both with core's state machine. A missing peer
//! program fails the suite.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says by a panic that it failed"
)]

mod budgets;
mod canary;
mod checks;
mod clocks;
mod content;
mod crowds;
mod engine;
mod foreign;
mod lives;
mod memory;
mod model;
mod older;
mod opening;
mod operators;
mod outages;
mod random;
mod scene;

/// Declares each case as one test per engine.
macro_rules! on_each_engine {
    ($($module:ident :: $case:ident,)*) => {
        mod sqlite {
            $(#[tokio::test]
            async fn $case() {
                super::$module::$case(&super::engine::Engine::sqlite().await).await;
            })*
        }
        mod redis {
            $(#[tokio::test]
            async fn $case() {
                super::$module::$case(&super::engine::Engine::redis().await).await;
            })*
        }
    };
}

on_each_engine!(
    opening::a_new_verification_is_what_was_ordered,
    opening::an_unconfirmed_message_is_sent_again_under_its_number,
    opening::a_step_follows_its_message_and_no_other,
    opening::a_further_message_waits_and_the_last_one_ends_it,
    opening::a_late_confirmation_is_not_the_current_ones,
    opening::a_rotating_policy_needs_a_code_and_kills_the_old_one,
    opening::slots_do_not_touch_each_other,
    opening::only_an_approval_is_followed,
    opening::a_resend_is_for_live_verifications_of_the_caller,
    opening::an_id_is_used_once,
    content::other_content_withdraws_in_the_step_that_opens,
    content::other_details_replace_the_order_and_void_its_steps,
    content::a_crowd_of_two_contents_leaves_one_alive,
    content::what_has_ended_is_not_marked_as_confirmed,
    lives::the_right_code_is_approved_once,
    lives::the_fifth_wrong_code_ends_it,
    lives::the_deadline_is_the_first_moment_that_fails,
    lives::a_resend_gives_no_check_back,
    lives::a_canceled_code_is_worth_nothing,
    lives::an_ended_verification_is_shown_for_an_hour,
    lives::an_ended_verification_forgets_what_could_be_compared,
    checks::another_services_verification_is_unknown_and_untouched,
    checks::another_purpose_counts_as_a_wrong_code,
    checks::a_digest_is_compared_under_its_own_key,
    checks::a_repeat_gets_the_stored_answer_and_counts_nothing,
    checks::a_repeat_with_another_code_is_refused,
    checks::each_expectation_that_is_not_met_makes_the_code_wrong,
    checks::a_repeat_with_other_expectations_is_refused,
    checks::a_refusal_is_not_remembered,
    budgets::an_attacker_is_stopped_by_the_hour_and_the_day,
    budgets::a_locked_subject_gets_no_message_and_no_check,
    budgets::the_right_code_gives_no_guess_back,
    budgets::an_approval_elsewhere_ends_no_row,
    budgets::too_many_in_a_row_lock_until_bound_anew,
    budgets::subjects_do_not_share_a_budget,
    crowds::a_hundred_guesses_compare_five,
    crowds::a_thousand_right_codes_approve_once,
    crowds::a_crowd_opens_one_verification,
    operators::an_operator_sees_any_services_verification,
    operators::a_message_that_a_limit_refused_names_the_limit,
    operators::a_message_sent_after_a_refusal_has_its_whole_time,
    operators::a_subjects_verifications_are_listed_and_no_others,
    operators::an_operator_sees_until_when_a_subject_is_locked,
    operators::an_unlock_says_whether_something_was_counted,
    foreign::records_of_others_are_corrupt,
    canary::the_store_shows_no_code_and_no_recipient,
    outages::a_reply_that_was_lost_is_asked_for_again,
);
