//! Known ways out of containers, tried on the built binary. In place of what such a way leads to on a host there is a
//! canary, whose state is asserted; so is what the user sees.
//!
//! By class, where its tests are; paths are from `crates` or this crate's `tests`.
//!
//! | | class | tests |
//! | --- | --- | --- |
//! | 1 | the runtime's program overwritten (CVE-2019-5736) | `binary::running_the_runtime_s_own_program_gains_nothing`, `docker/survive.rs::the_program_on_the_host_cannot_be_written_through_its_processes`, `oci/rootless.rs::a_user_s_own_runtime_is_not_written_to_by_its_containers` |
//! | 2 | tracing who is on his way in (CVE-2016-9962) | `binary::processes_on_their_way_in_show_nothing`, `binary::a_process_on_its_way_in_may_do_no_more_than_the_container`, `binary::who_stops_all_that_comes_holds_no_first_process_for_ever`, `oci/hostile.rs::the_waiting_process_shows_nothing_to_the_container` |
//! | 3 | a leaked fd, a directory outside (CVE-2024-21626) | `binary::a_program_has_the_standard_streams_and_no_other_fd`, `binary::a_working_directory_is_inside_of_the_root`, `oci/hostile.rs::the_working_directory_cannot_be_an_fd_of_the_runtime_s` |
//! | 4 | procfs redirected (CVE-2019-16884, 2019-19921, 2025-52881) | all of `procfs`, `oci/hostile.rs::links_in_place_of_the_kernel_s_directories_stay_inside`, `docker/refuse.rs`, `runtime`'s `label::a_label_is_written_to_its_own_file_of_procfs_and_no_other` |
//! | 5 | what masks and consoles are made of (CVE-2025-31133, 2025-52565) | `mounts::what_masks_are_made_of_is_not_the_image_s`, `mounts::a_terminal_is_no_file_of_the_image_s`, `oci/terminal.rs::a_terminal_is_none_that_the_image_has_for_one` |
//! | 6 | links in the root while it is made ready (CVE-2024-45310, 2026-41579) | `mounts::the_image_s_links_lead_no_mount_and_no_file_of_ours_out`, `mounts::a_link_in_place_of_etc_stays_inside`, `rooted-path/tests/escape.rs`, `runtime`'s `devices::a_node_whose_name_is_swapped_changes_nothing_of_what_takes_its_place` |
//! | 7 | a mount's place swapped (CVE-2021-30465, 2026-42306) | `mounts::a_mount_whose_place_is_swapped_for_a_link_stays_inside`, `mounts::a_part_of_a_volume_that_is_swapped_for_a_link_stays_inside`, `oci/hostile.rs::mount_destinations_that_are_links_stay_inside` |
//! | 8 | copying while links are swapped (CVE-2018-15664) | `copy::copies_while_a_directory_is_swapped_for_a_link_stay_inside`, `copy::differences_and_sizes_while_a_directory_is_swapped_stay_inside` |
//! | 9 | the host runs what the container brings (CVE-2019-14271, 2026-41567) | `copy::nothing_of_the_container_s_tree_is_run_on_the_host` |
//! | 10 | modes and owners changed through links (CVE-2021-32760) | `archive/tests/hostile.rs::a_link_is_not_written_through`, `rooted-path/tests/escape.rs::attributes_of_a_link_are_never_those_of_its_target` |
//! | 11 | data that users read (CVE-2021-41091) | `api::nobody_else_reads_what_the_daemon_keeps` |
//! | 12 | abstract sockets (CVE-2020-15257) | `api::there_is_no_abstract_socket` |
//! | 13 | `release_agent` and writable groups (CVE-2022-0492, 2023-25809) | `confinement::control_groups_and_devices_are_not_the_container_s_to_change`, `oci/rootless.rs::control_groups_are_shown_and_not_given` |
//! | 14 | devices, `devices.allow`, file handles | `confinement::devices_of_the_host_do_not_open`, `oci/limits.rs::without_a_controller_of_devices_their_rules_fail_closed`, `confinement::rarely_used_system_calls_are_refused` |
//! | 15 | rarely used system calls (CVE-2022-0185, 2024-1086) | `confinement::rarely_used_system_calls_are_refused` |
//! | 16 | inheritable capabilities (CVE-2022-24769) | `confinement::nobody_inherits_capabilities`, `confinement::an_exec_is_as_confined_as_the_container` |
//! | 17 | users and groups (CVE-2022-36109, 2024-40635, 2026-30892) | `ids::an_id_that_overflows_is_no_root`, `confinement::groups_are_the_user_s_own` |
//! | 18 | lines and parameters injected (CVE-2022-0811, 2022-4318) | `procfs::kernel_parameters_are_the_container_s_own`, `ids::control_characters_add_no_lines_and_move_no_cursor`, `docker/refuse.rs` |
//! | 19 | an image's volumes (CVE-2022-23648) | `mounts::an_image_s_volumes_are_filled_from_inside` |
//! | 20 | tables of users that are no files (CVE-2024-9676) | `ids::a_table_of_users_that_is_no_file_blocks_nobody`, `ids::a_hosts_file_that_grows_costs_the_daemon_nothing`, `docker/refuse.rs::a_group_file_that_is_too_large_is_no_empty_one` |
//! | 21 | layers that lead out (CVE-2014-6407) | `archive/tests/hostile.rs`, `snapshot/tests/snapshot/hostile.rs::what_leads_out_leaves_nothing`, `build::an_archive_s_entries_lead_to_nothing_of_the_host_s` |
//! | 22 | whiteouts | `archive/tests/hostile.rs::whiteouts_remove_one_name_inside_and_nothing_else` |
//! | 23 | overlayfs's attributes in a layer | `archive/tests/hostile.rs::attributes_that_steer_overlayfs_are_not_taken` |
//! | 24 | sizes and holes that lie | `archive/tests/hostile.rs::sizes_that_lie_end_in_an_error`, `archive/tests/hostile.rs::bounds_hold_before_anything_is_written` |
//! | 25 | bombs | `archive/tests/hostile.rs::bounds_hold_before_anything_is_written`, `image/tests/image/registry_faults.rs::what_inflates_without_end_ends_at_the_budget` |
//! | 26 | bytes that are not what their name says (CVE-2021-41190) | `image/tests/image/registry_faults.rs::content_that_is_not_what_its_name_says_is_not_kept`, `snapshot/tests/snapshot/hostile.rs::a_wrong_diff_id_leaves_nothing` |
//! | 27 | names in an archive of images (CVE-2014-9356) | `image/tests/image/archives.rs::hostile_archives_leave_nothing` |
//! | 28 | configurations that end the daemon (CVE-2021-21285) | `api::odd_configurations_of_images_end_nobody` |
//! | 31 | a context that leads out (CVE-2019-13139) | `build::a_context_s_links_lead_to_nothing_of_the_host_s`, `build::the_dockerfile_is_the_context_s`, `build::a_remote_context_is_no_option` |
//! | 32 | a step's mounts (CVE-2024-23651, 2024-23652, 2024-1753) | `build::places_for_a_step_s_mounts_are_made_and_removed_inside`, `build::a_cache_leads_no_mount_out` |
//! | 33 | a step's privileges (CVE-2024-23653) | `build::a_step_has_no_privileges_to_ask_for` |
//! | 35 | plugins that authorize (CVE-2024-41110) | there are none: the daemon has no such plugins, and refuses their option |
//! | 36 | the API within reach (CVE-2025-9074) | `api::the_api_is_reached_by_its_socket_alone`, `docker/tcp.rs::where_everybody_may_come_pages_of_others_may_not` |
//! | 37 | published ports (CVE-2025-54388) | `network/tests/network/publish.rs::a_loopback_port_is_not_reached_by_forgery`, `network/tests/network/publish.rs::a_port_is_published_on_this_host_and_no_other` |
//! | 38 | networks apart (CVE-2024-29018) | `network/tests/network/firewall.rs::an_internal_network_is_cut_off`, `network/tests/network/firewall.rs::networks_are_apart_from_one_another_and_from_outside`, `dns/tests/dns/names.rs::an_internal_network_knows_its_own_only` |
//! | 39 | helpers in a user namespace (CVE-2021-21284, 2022-1227) | `api::a_list_of_processes_is_made_by_the_host`, all of `userns` |
//! | 40 | what comes and goes and is not given back (CVE-2022-31030) | `api::what_comes_and_goes_leaves_nothing` |
//! | 41 | set-user-ID on mounts | `mounts::a_set_user_id_program_on_a_tmpfs_sets_no_user_id`, `mounts::mounts_do_not_reach_the_host` |
//! | 42 | a client that believes a server | `copy::a_client_writes_where_it_was_told_to`, `ids::control_characters_add_no_lines_and_move_no_cursor` |

mod api;
mod binary;
mod build;
#[expect(dead_code, reason = "the bundles of the tests of `wharf oci`: not all of it is needed here")]
#[path = "../oci/kit.rs"]
mod bundle;
mod canary;
mod confinement;
mod copy;
mod ids;
mod image;
mod init;
#[expect(dead_code, reason = "the daemon of the tests with Docker's client: not all of it is needed here")]
#[path = "../docker/kit.rs"]
mod kit;
mod mounts;
mod procfs;
mod program;
mod swapper;
mod userns;
