//! The table itself.
//!
//! The gateway's document gives a path, a query and a body for its first ten operations, an older
//! version of it for three more; the others are named with their method and follow by analogy. What
//! stands behind each is the marketplace's documented route.

use super::{Fact, Group, Route, Source};
use crate::marketplace::limits::Gate;
use crate::ports::Method;

macro_rules! route {
    ($method:ident $path:literal $source:ident
     $(query [$($query:literal)*])? $(body [$($body:literal)*])?
     $(fix [$($name:literal = $value:literal)*])? $(send $fixed:literal)?) => {
        &Route {
            method: Method::$method,
            path: $path,
            source: Source::$source,
            query: &[$($($query,)*)?],
            body: &[$($($body,)*)?],
            fixed_query: &[$($(($name, $value),)*)?],
            fixed_body: concat!($($fixed)?),
        }
    };
}

macro_rules! optional {
    () => {
        None
    };
    ($route:expr) => {
        Some($route)
    };
}

macro_rules! operations {
    ($($(#[doc = $title:literal])* $variant:ident $name:literal $group:ident $changes:literal $gate:ident
        $(gateway { $($gateway:tt)* })? $(native { $($native:tt)* })?
        $(remark $remark:literal)? $(command $command:literal)? tested [$($tested:literal)*];)*) => {
        /// An operation of the marketplace, through the gateway, by its own format, or both.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Operation { $($(#[doc = $title])* $variant,)* }

        impl Operation {
            /// All of them: the gateway's in the order of its document, then the others.
            pub const ALL: [Self; [$(Self::$variant),*].len()] = [$(Self::$variant),*];

            /// What there is to know of it.
            pub fn fact(self) -> &'static Fact {
                match self {
                    $(Self::$variant => {
                        const FACT: Fact = Fact {
                            name: $name,
                            title: trimmed(concat!($($title),*)),
                            group: Group::$group,
                            changes: $changes,
                            gate: Gate::$gate,
                            gateway: optional!($(route!($($gateway)*))?),
                            native: optional!($(route!($($native)*))?),
                            remark: concat!($($remark)?),
                            command: concat!($($command)?),
                            tested: &[$($tested,)*],
                        };
                        &FACT
                    })*
                }
            }
        }
    };
}

/// A title without the blank and the full stop that a comment gives it.
const fn trimmed(title: &'static str) -> &'static str {
    match title.as_bytes() {
        [b' ', .., b'.'] => title.split_at(title.len() - 1).0.split_at(1).1,
        _ => title,
    }
}

operations! {
    // ------------------------------------------------------------------------- through the gateway
    /// List available GPU offers.
    Offers "offers" Offers false Search
        gateway { Get "/offers" Documented
            query ["type" "limit" "offset" "order" "q" "sort_option" "allocated_storage" "disable_bundling"] }
        native { Post "/api/v0/bundles/" Documented
            body ["type" "order" "limit" "allocated_storage" "disable_bundling" "gpu_name" "num_gpus"
                "machine_id" "host_id" "ask_contract_id" "verified" "rentable" "rented" "external"
                "datacenter" "reliability" "reliability2" "dph_total" "min_bid" "gpu_ram" "cuda_max_good"
                "compute_cap" "driver_version" "cpu_cores" "cpu_ram" "disk_space" "disk_bw" "inet_up"
                "inet_down" "inet_up_cost" "inet_down_cost" "storage_cost" "direct_port_count" "duration"
                "static_ip" "geolocation"] send "{}" }
        remark "the filter travels as `q` through the gateway and as the body natively; there is no offset, and at most 64 rows"
        command "`haggle offers`, `plan`, `run`"
        tested ["tests/gateway.rs" "tests/api.rs" "tests/native.rs" "tests/paths.rs" "tests/conformance.rs"];
    /// Get specific offer details.
    Offer "offer" Offers false Search
        gateway { Get "/offers/{offer_id}" Documented }
        native { Post "/api/v0/bundles/" Documented body ["type" "allocated_storage"]
            send r#"{"ask_contract_id":{"eq":"{offer_id}"},"verified":{"in":[true,false]},"rentable":{"in":[true,false]},"rented":{"in":[true,false]}}"# }
        remark "natively a search by `ask_contract_id`"
        command "`haggle run`"
        tested ["tests/gateway.rs" "tests/api.rs" "tests/native.rs" "tests/paths.rs"];
    /// List your machines.
    Machines "machines" Machines false Records
        gateway { Get "/machines" Documented query ["limit" "offset" "owner_id"] }
        native { Get "/api/v0/machines/" Documented fix ["owner" = "me"] }
        remark "only one's own machines"
        tested ["tests/api.rs" "tests/conformance.rs"];
    /// Get machine details.
    Machine "machine" Machines false Records
        gateway { Get "/machines/{machine_id}" Documented }
        native { Get "/api/v0/machines/{machine_id}/" Documented fix ["owner" = "me"] }
        remark "natively a list of one"
        tested ["tests/api.rs" "tests/conformance.rs"];
    /// Create a new machine offer.
    CreateMachine "create_machine" Machines true RecordChanges
        gateway { Post "/machines" Documented body ["discount" "machine_id" "min_bid" "price" "verified"] }
        native { Put "/api/v0/machines/create_asks/" Documented
            body ["machine" "price_gpu" "price_disk" "price_inetu" "price_inetd" "price_min_bid" "min_chunk"
                "end_date" "duration" "credit_discount_max" "vol_size" "vol_price"] send "{}" }
        remark "natively `price_gpu`, `price_min_bid` and `credit_discount_max`, per GPU; a host cannot set `verified`"
        tested ["tests/api.rs" "tests/conformance.rs"];
    /// Update machine offer.
    UpdateMachine "update_machine" Machines true RecordChanges
        gateway { Put "/machines/{machine_id}" Documented body ["discount" "min_bid" "price" "verified"] }
        native { Put "/api/v0/machines/create_asks/" Documented
            body ["price_gpu" "price_disk" "price_inetu" "price_inetd" "price_min_bid" "min_chunk"
                "end_date" "duration" "credit_discount_max" "vol_size" "vol_price"]
            send r#"{"machine":"{machine_id}"}"# }
        remark "natively the same as to create; later rentals alone are bound by it"
        tested ["tests/api.rs"];
    /// Delete machine offer.
    DeleteMachine "delete_machine" Machines true RecordChanges
        gateway { Delete "/machines/{machine_id}" Documented }
        native { Delete "/api/v0/machines/{machine_id}/asks/" Documented }
        remark "takes the machine off the market; it is not deleted"
        tested ["tests/api.rs" "tests/conformance.rs"];
    /// List instances.
    Instances "instances" Instances false Instances
        gateway { Get "/instances" Documented query ["limit" "offset" "owner_id" "state" "after_token"] }
        native { Get "/api/v1/instances/" Documented
            query ["limit" "after_token" "order_by" "select_cols" "select_filters"] }
        remark "natively in pages of at most 25; `state` is `select_filters` there"
        command "`haggle run`, `kill`, `doctor`"
        tested ["tests/gateway.rs" "tests/api.rs" "tests/native.rs" "tests/paths.rs" "tests/conformance.rs"];
    /// Get instance details.
    Instance "instance" Instances false Instance
        gateway { Get "/instances/{instance_id}" Documented }
        native { Get "/api/v0/instances/{instance_id}/" Documented fix ["owner" = "me"] }
        command "`haggle run`, `kill`"
        tested ["tests/gateway.rs" "tests/api.rs" "tests/native.rs" "tests/paths.rs" "tests/conformance.rs"];
    /// Create new instance.
    CreateInstance "create_instance" Instances true Create
        gateway { Post "/instances" Documented
            body ["args" "disk" "env" "image" "label" "offer_id" "onstart" "cancel_unavail" "runtype"
                "template_hash_id" "image_login"] }
        native { Put "/api/v0/asks/{offer_id}/" Documented
            body ["image" "disk" "env" "onstart" "args" "args_str" "runtype" "label" "target_state"
                "cancel_unavail" "template_hash_id" "template_id" "image_login" "user" "extra" "force" "vm"
                "volume_info"] }
        remark "on-demand: it carries no price"
        command "`haggle run`"
        tested ["tests/gateway.rs" "tests/api.rs" "tests/native.rs" "tests/paths.rs"];
    /// Update instance.
    UpdateInstance "update_instance" Instances true Manage
        gateway { Put "/instances/{instance_id}" Inferred body ["label"] }
        native { Put "/api/v0/instances/{instance_id}/" Documented body ["label" "state"] send "{}" }
        remark "changes the label"
        tested ["src/marketplace/lowcode/tests/acts.rs" "tests/api.rs" "tests/native.rs" "tests/conformance.rs"];
    /// Stop instance.
    StopInstance "stop_instance" Instances true Manage
        gateway { Post "/instances/{instance_id}/stop" Inferred }
        native { Put "/api/v0/instances/{instance_id}/" Documented send r#"{"state":"stopped"}"# }
        command "`haggle run`"
        tested ["tests/gateway.rs" "tests/api.rs" "tests/native.rs" "tests/conformance.rs"];
    /// Start instance.
    StartInstance "start_instance" Instances true Manage
        gateway { Post "/instances/{instance_id}/start" Inferred }
        native { Put "/api/v0/instances/{instance_id}/" Documented send r#"{"state":"running"}"# }
        remark "a start whose GPU is busy is queued, and may happen and bill later"
        command "`haggle run`"
        tested ["tests/gateway.rs" "tests/api.rs" "tests/native.rs" "tests/conformance.rs"];
    /// Delete instance.
    DeleteInstance "delete_instance" Instances true Destroy
        gateway { Delete "/instances/{instance_id}" Inferred }
        native { Delete "/api/v0/instances/{instance_id}/" Documented }
        command "`haggle run`, `stop`, `done`, `kill`"
        tested ["tests/gateway.rs" "tests/api.rs" "tests/native.rs" "tests/paths.rs" "tests/conformance.rs"];
    /// List bids.
    Bids "bids" Bids false Instances
        gateway { Get "/bids" Documented query ["owner_id" "limit" "offset"] }
        native { Get "/api/v1/instances/" Documented
            query ["limit" "after_token" "order_by" "select_cols" "select_filters"] }
        remark "a bid is an interruptible instance: natively the rows with `is_bid`"
        tested ["tests/api.rs"];
    /// Get bid details.
    BidById "bid" Bids false Instance
        gateway { Get "/bids/{bid_id}" Documented }
        native { Get "/api/v0/instances/{bid_id}/" Documented fix ["owner" = "me"] }
        remark "a bid's id is its instance's; `dph_base` is the standing bid"
        command "`haggle run`"
        tested ["tests/gateway.rs" "tests/api.rs"];
    /// Create new bid.
    CreateBid "create_bid" Bids true Create
        gateway { Post "/bids" Inferred
            body ["offer_id" "args" "disk" "env" "image" "label" "onstart" "cancel_unavail" "runtype"
                "template_hash_id" "image_login"] send r#"{"price":"{price}"}"# }
        native { Put "/api/v0/asks/{offer_id}/" Documented
            body ["image" "disk" "env" "onstart" "args" "args_str" "runtype" "label" "target_state"
                "cancel_unavail" "template_hash_id" "template_id" "image_login" "user" "extra" "force" "vm"
                "volume_info"]
            send r#"{"price":"{price}"}"# }
        remark "dollars per hour for the whole offer; a bid under the floor leaves a stopped instance"
        command "`haggle run`"
        tested ["tests/gateway.rs" "tests/api.rs" "tests/native.rs" "tests/paths.rs" "tests/conformance.rs"];
    /// Update bid.
    UpdateBid "update_bid" Bids true Bid
        gateway { Put "/bids/{bid_id}" Inferred send r#"{"price":"{price}"}"# }
        native { Put "/api/v0/instances/bid_price/{bid_id}/" Documented
            send r#"{"client_id":"me","price":"{price}"}"# }
        remark "never without a price: the marketplace would choose one"
        command "`haggle run`, `pause`"
        tested ["tests/gateway.rs" "tests/api.rs" "tests/native.rs" "tests/paths.rs" "tests/conformance.rs"];
    /// Delete bid.
    DeleteBid "delete_bid" Bids true Destroy
        gateway { Delete "/bids/{bid_id}" Inferred }
        native { Delete "/api/v0/instances/{bid_id}/" Documented }
        remark "destroys the instance"
        tested ["tests/api.rs"];
    /// Get current user information.
    User "user" Users false User
        gateway { Get "/users/me" Inferred }
        native { Get "/api/v0/users/current/" Documented }
        command "`haggle run`, `doctor`"
        tested ["tests/gateway.rs" "tests/api.rs" "tests/native.rs" "tests/paths.rs" "tests/conformance.rs"];
    /// Get user information.
    UserById "user_by_id" Users false User
        gateway { Get "/users/{user_id}" Inferred }
        remark "natively no route reads another user"
        tested ["tests/api.rs"];
    /// Update current user.
    UpdateUser "update_user" Users true RecordChanges
        gateway { Put "/users/me" Inferred
            body ["ssh_key" "email" "username" "fullname" "balance_threshold" "balance_threshold_enabled"
                "autobill_threshold" "phone_number"] }
        native { Put "/api/v0/users/" Documented
            body ["ssh_key" "email" "normalized_email" "username" "fullname" "paypal_email" "wise_email"
                "billaddress_line1" "billaddress_line2" "billaddress_city" "billaddress_zip"
                "billaddress_country" "balance_threshold_enabled" "balance_threshold" "autobill_threshold"
                "phone_number"] send "{}" }
        tested ["tests/api.rs"];
    /// List templates.
    Templates "templates" Templates false Records
        gateway { Get "/templates" Inferred query ["limit" "offset" "select_cols" "select_filters" "order_by"] }
        native { Get "/api/v0/template/" Documented query ["select_cols" "select_filters" "order_by"] }
        tested ["tests/api.rs" "tests/conformance.rs"];
    /// Get template details.
    Template "template" Templates false Records
        gateway { Get "/templates/{template_id}" Inferred }
        native { Get "/api/v0/template/" Documented query ["select_cols"]
            fix ["select_filters" = r#"{"id":{"eq":"{template_id}"}}"#] }
        remark "natively the list, filtered; `template_id` is the number"
        tested ["tests/api.rs"];
    /// Create template.
    CreateTemplate "create_template" Templates true RecordChanges
        gateway { Post "/templates" Inferred
            body ["name" "image" "tag" "env" "onstart" "runtype" "ssh_direct" "jup_direct" "use_ssh"
                "recommended_disk_space" "private" "desc" "readme" "extra_filters"] }
        native { Post "/api/v0/template/" Documented
            body ["name" "image" "tag" "env" "onstart" "runtype" "ssh_direct" "jup_direct" "use_ssh"
                "use_jupyter_lab" "jupyter_dir" "recommended_disk_space" "private" "desc" "readme"
                "readme_visible" "extra_filters" "docker_login_repo" "docker_login_user"
                "docker_login_pass"] send "{}" }
        remark "`env` is a text of docker flags here"
        tested ["tests/api.rs" "tests/conformance.rs"];
    /// Update template.
    UpdateTemplate "update_template" Templates true RecordChanges
        gateway { Put "/templates/{template_id}" Inferred
            body ["hash_id" "name" "image" "tag" "env" "onstart" "runtype" "ssh_direct" "jup_direct" "use_ssh"
                "recommended_disk_space" "private" "desc" "readme" "extra_filters"] }
        native { Put "/api/v0/template/" Documented
            body ["id" "name" "image" "tag" "env" "onstart" "runtype" "ssh_direct" "jup_direct" "use_ssh"
                "use_jupyter_lab" "jupyter_dir" "recommended_disk_space" "private" "desc" "readme"
                "readme_visible" "extra_filters"]
            send r#"{"hash_id":"{hash_id}"}"# }
        remark "natively by `hash_id`, which every edit changes"
        tested ["tests/api.rs" "tests/conformance.rs"];
    /// Delete template.
    DeleteTemplate "delete_template" Templates true RecordChanges
        gateway { Delete "/templates/{template_id}" Inferred }
        native { Delete "/api/v0/template/" Documented send r#"{"template_id":"{template_id}"}"# }
        tested ["tests/api.rs" "tests/conformance.rs"];
    /// List SSH keys.
    SshKeys "ssh_keys" SshKeys false Records
        gateway { Get "/ssh_keys" Inferred query ["limit" "offset"] }
        native { Get "/api/v0/ssh/" Documented }
        tested ["tests/api.rs" "tests/conformance.rs"];
    /// Add SSH key.
    CreateSshKey "create_ssh_key" SshKeys true RecordChanges
        gateway { Post "/ssh_keys" Inferred body ["ssh_key"] }
        native { Post "/api/v0/ssh/" Documented body ["ssh_key"] send "{}" }
        tested ["tests/api.rs" "tests/conformance.rs"];
    /// Delete SSH key.
    DeleteSshKey "delete_ssh_key" SshKeys true RecordChanges
        gateway { Delete "/ssh_keys/{key_id}" Inferred }
        native { Delete "/api/v0/ssh/{key_id}/" Documented }
        tested ["tests/api.rs" "tests/conformance.rs"];
    /// List invoices.
    Invoices "invoices" Invoices false Charges
        gateway { Get "/invoices" Inferred
            query ["limit" "offset" "select_filters" "after_token" "sdate" "edate" "inc_charges"] }
        native { Get "/api/v1/invoices/" Documented
            query ["select_filters" "order_by" "latest_first" "limit" "after_token"] }
        remark "natively payments; usage is `charges`; `select_filters` with a range `when` is required"
        command "`haggle run`"
        tested ["tests/gateway.rs" "tests/api.rs" "tests/native.rs" "tests/conformance.rs"];
    /// Get invoice details.
    Invoice "invoice" Invoices false Charges
        gateway { Get "/invoices/{invoice_id}" Inferred }
        native { Get "/api/v0/invoices/" Documented query ["select_cols"]
            fix ["select_filters" = r#"{"id":{"eq":"{invoice_id}"}}"#] }
        remark "natively the list, filtered"
        tested ["tests/api.rs"];
    /// Get account balance.
    Balance "balance" Account false User
        gateway { Get "/balance" Documented }
        native { Get "/api/v0/users/current/" Documented }
        remark "natively the user's `credit`"
        command "`haggle run`, `doctor`"
        tested ["tests/gateway.rs" "tests/api.rs" "tests/native.rs"];

    // --------------------------------------------------------------- by the marketplace's own format
    /// List names of GPU models.
    GpuNames "gpu_names" Offers false Records
        native { Get "/api/v0/gpu_names/unique/" Documented }
        tested ["tests/api.rs"];
    /// List all instances in one answer.
    AllInstances "all_instances" Instances false InstancesUnpaged
        native { Get "/api/v0/instances/" Documented fix ["owner" = "me"] }
        remark "the older list, without pages"
        tested ["tests/api.rs"];
    /// Start or stop several instances.
    ManageInstances "manage_instances" Instances true Manage
        native { Put "/api/v0/instances/" Documented body ["state" "ids"] send "{}" }
        tested ["tests/api.rs"];
    /// Destroy several instances.
    DestroyInstances "destroy_instances" Instances true DestroyMany
        native { Delete "/api/v0/instances/" Documented body ["instance_ids"] send "{}" }
        tested ["tests/api.rs"];
    /// Reboot an instance.
    RebootInstance "reboot_instance" Instances true Manage
        native { Put "/api/v0/instances/reboot/{instance_id}/" Documented send "{}" }
        remark "keeps the GPU"
        tested ["tests/api.rs"];
    /// Make an instance's container anew.
    RecycleInstance "recycle_instance" Instances true Manage
        native { Put "/api/v0/instances/recycle/{instance_id}/" Documented send "{}" }
        remark "keeps the GPU"
        tested ["tests/api.rs"];
    /// Change an instance's template.
    UpdateInstanceTemplate "update_instance_template" Instances true Manage
        native { Put "/api/v0/instances/update_template/{instance_id}/" Documented
            body ["template_id" "template_hash_id" "image" "args" "env" "onstart"]
            send r#"{"id":"{instance_id}"}"# }
        tested ["tests/api.rs"];
    /// Pay an instance ahead.
    PrepayInstance "prepay_instance" Instances true Manage
        native { Put "/api/v0/instances/prepay/{instance_id}/" Documented send r#"{"amount":"{amount}"}"# }
        remark "locks the deposit to the instance"
        tested ["tests/api.rs"];
    /// Show what an instance was paid ahead.
    PrepaidBalance "prepaid_balance" Instances false Instance
        native { Get "/api/v0/instances/balance/{instance_id}/" Documented }
        tested ["tests/api.rs"];
    /// Ask for an instance's log.
    Logs "logs" Instances true Logs
        native { Put "/api/v0/instances/request_logs/{instance_id}/" Documented
            body ["tail" "filter" "daemon_logs"] send "{}" }
        remark "the answer names a URL where the log appears; `--reveal` shows it"
        command "`haggle logs`"
        tested ["tests/api.rs" "tests/native.rs" "tests/conformance.rs" "tests/logs.rs"];
    /// Run a command on an instance's disk.
    Command "command" Instances true Manage
        native { Put "/api/v0/instances/command/{instance_id}/" Documented body ["command"] send "{}" }
        remark "the answer names a URL where the output appears; `--reveal` shows it"
        tested ["tests/api.rs"];
    /// Copy between instances.
    Copy "copy" Instances true Copy
        native { Put "/api/v0/commands/copy_direct/" Documented
            body ["src_id" "dst_id" "src_path" "dst_path"] send r#"{"client_id":"me"}"# }
        remark "works on stopped ones; never onto `/` or `/root`"
        tested ["tests/api.rs" "tests/native.rs" "tests/conformance.rs"];
    /// Cancel a copy.
    CancelCopy "cancel_copy" Instances true Copy
        native { Delete "/api/v0/commands/copy_direct/" Documented
            body ["dst_id"] send r#"{"client_id":"me"}"# }
        tested ["tests/api.rs"];
    /// Copy to or from cloud storage.
    CloudCopy "cloud_copy" Instances true CloudCopy
        native { Post "/api/v0/commands/rclone/" Documented
            body ["instance_id" "src" "dst" "selected" "transfer" "flags"] send "{}" }
        tested ["tests/api.rs" "tests/conformance.rs"];
    /// List price increases that hosts ask for.
    PriceIncreases "price_increases" Instances false PriceIncreases
        native { Get "/api/v0/instances/pending-price-increases/" Documented }
        tested ["tests/api.rs" "tests/native.rs" "tests/conformance.rs"];
    /// Accept a price increase.
    AcceptPriceIncrease "accept_price_increase" Instances true RecordChanges
        native { Put "/api/v0/instances/accept-price-increase/" Documented
            send r#"{"pending_price_increase_id":"{pending_price_increase_id}"}"# }
        tested ["tests/api.rs"];
    /// Reject a price increase.
    RejectPriceIncrease "reject_price_increase" Instances true RecordChanges
        native { Put "/api/v0/instances/reject-price-increase/" Documented
            send r#"{"pending_price_increase_id":"{pending_price_increase_id}"}"# }
        tested ["tests/api.rs"];
    /// List an instance's SSH keys.
    InstanceSshKeys "instance_ssh_keys" SshKeys false Records
        native { Get "/api/v0/instances/{instance_id}/ssh/" Documented }
        tested ["tests/api.rs"];
    /// Attach an SSH key to an instance.
    AttachSshKey "attach_ssh_key" SshKeys true RecordChanges
        native { Post "/api/v0/instances/{instance_id}/ssh/" Documented body ["ssh_key"] send "{}" }
        tested ["tests/api.rs"];
    /// Detach an SSH key from an instance.
    DetachSshKey "detach_ssh_key" SshKeys true RecordChanges
        native { Delete "/api/v0/instances/{instance_id}/ssh/{key_id}/" Documented }
        tested ["tests/api.rs"];
    /// Change an SSH key.
    UpdateSshKey "update_ssh_key" SshKeys true RecordChanges
        native { Put "/api/v0/ssh/{key_id}/" Documented body ["ssh_key"] send r#"{"id":"{key_id}"}"# }
        tested ["tests/api.rs"];
    /// List reports of a machine.
    MachineReports "machine_reports" Machines false Reports
        native { Get "/api/v0/machines/{machine_id}/reports/" Documented }
        remark "of any machine"
        tested ["tests/api.rs" "tests/native.rs" "tests/conformance.rs"];
    /// Set a machine's least bid.
    SetMinBid "set_min_bid" Machines true RecordChanges
        native { Put "/api/v0/machines/{machine_id}/minbid/" Documented
            send r#"{"client_id":"me","price":"{price}"}"# }
        remark "dollars per hour and GPU"
        tested ["tests/api.rs" "tests/conformance.rs"];
    /// Set a machine's own job for idle GPUs.
    SetDefaultJob "set_default_job" Machines true RecordChanges
        native { Put "/api/v0/machines/create_bids/" Documented
            body ["machine" "price_gpu" "price_inetu" "price_inetd" "image" "args"] send "{}" }
        tested ["tests/api.rs"];
    /// Remove a machine's own job.
    RemoveDefaultJob "remove_default_job" Machines true RecordChanges
        native { Delete "/api/v0/machines/{machine_id}/defjob/" Documented }
        tested ["tests/api.rs"];
    /// Schedule a machine's maintenance.
    ScheduleMaintenance "schedule_maintenance" Machines true RecordChanges
        native { Put "/api/v0/machines/{machine_id}/dnotify/" Documented
            body ["sdate" "duration" "maintenance_category"] send r#"{"client_id":"me"}"# }
        tested ["tests/api.rs"];
    /// Cancel a machine's maintenance.
    CancelMaintenance "cancel_maintenance" Machines true RecordChanges
        native { Put "/api/v0/machines/{machine_id}/cancel_maint/" Documented send r#"{"client_id":"me"}"# }
        tested ["tests/api.rs"];
    /// Remove expired storage from a machine.
    CleanupMachine "cleanup_machine" Machines true RecordChanges
        native { Put "/api/v0/machines/{machine_id}/cleanup/" Documented send "{}" }
        tested ["tests/api.rs"];
    /// Remove a machine with all that is on it.
    ForceDeleteMachine "force_delete_machine" Machines true RecordChanges
        native { Post "/api/v0/machines/{machine_id}/force_delete/" Documented send "{}" }
        tested ["tests/api.rs"];
    /// Show what machines earned.
    Earnings "earnings" Machines false Records
        native { Get "/api/v0/users/me/machine-earnings/" Documented
            query ["sday" "eday" "machid"] fix ["owner" = "me"] }
        remark "days are seconds of the epoch over 86400"
        tested ["tests/api.rs" "tests/conformance.rs"];
    /// List charges.
    Charges "charges" Invoices false Charges
        native { Get "/api/v0/charges/" Documented
            query ["select_filters" "format" "latest_first" "limit" "after_token"] }
        remark "`select_filters` with a range `day` is required"
        tested ["tests/api.rs" "tests/native.rs"];
    /// List invoices and charges, the older way.
    OldInvoices "old_invoices" Invoices false Charges
        native { Get "/api/v0/users/me/invoices/" Documented
            query ["sdate" "edate" "inc_charges"] fix ["owner" = "me"] }
        tested ["tests/api.rs"];
    /// Send credit to another account.
    TransferCredit "transfer_credit" Account true RecordChanges
        native { Put "/api/v0/commands/transfer_credit/" Documented
            send r#"{"sender":"me","recipient":"{recipient}","amount":"{amount}"}"# }
        remark "it cannot be taken back"
        tested ["tests/api.rs"];
    /// Show what was done on the account.
    AuditLogs "audit_logs" Account false Records
        native { Get "/api/v0/audit_logs/" Documented }
        tested ["tests/api.rs" "tests/conformance.rs"];
    /// List notifications.
    Notifications "notifications" Notifications false Inbox
        native { Get "/api/v0/notifications/inbox/" Documented }
        remark "the last 50; it may vanish"
        tested ["tests/api.rs" "tests/native.rs"];
    /// List kinds of notifications.
    NotificationTypes "notification_types" Notifications false Records
        native { Get "/api/v0/notification-types/" Documented }
        tested ["tests/api.rs"];
    /// List webhooks.
    Webhooks "webhooks" Notifications false Records
        native { Get "/api/v0/webhooks/" Documented }
        tested ["tests/api.rs"];
    /// Create a webhook.
    CreateWebhook "create_webhook" Notifications true RecordChanges
        native { Post "/api/v0/webhooks/" Documented body ["name" "webhook_url" "event_types"] send "{}" }
        remark "https to a public address; its secret comes once, and `--reveal` shows it"
        tested ["tests/api.rs"];
    /// Change a webhook.
    UpdateWebhook "update_webhook" Notifications true RecordChanges
        native { Put "/api/v0/webhooks/{webhook_id}/" Documented
            body ["name" "webhook_url" "event_types"] send "{}" }
        tested ["tests/api.rs"];
    /// Delete a webhook.
    DeleteWebhook "delete_webhook" Notifications true RecordChanges
        native { Delete "/api/v0/webhooks/{webhook_id}/" Documented }
        tested ["tests/api.rs"];
    /// Make a webhook's secret anew.
    RotateWebhookSecret "rotate_webhook_secret" Notifications true RecordChanges
        native { Post "/api/v0/webhooks/{webhook_id}/rotate-secret/" Documented send "{}" }
        remark "the secret comes once, and `--reveal` shows it"
        tested ["tests/api.rs"];
    /// Have a webhook called.
    TestWebhook "test_webhook" Notifications true RecordChanges
        native { Post "/api/v0/webhooks/{webhook_id}/test/" Documented send "{}" }
        tested ["tests/api.rs"];
}
