//! Links between containers, and networks that are not there.

use crate::kit::Daemon;

#[test]
fn linked_containers_are_known_by_name() {
    let Some(d) = Daemon::start() else { return };
    d.docker("run -d --name one --expose 80 -e WORD=x busybox sleep 100").ok();
    d.docker("run -d --name two --link one --link one:al-ias busybox sleep 100").ok();
    let hosts = d.docker("exec two cat /etc/hosts").ok();
    assert!(hosts.contains("\tone ") && hosts.contains("\tal-ias "), "{hosts}");
    let env = d.docker("exec two env").ok();
    for word in ["ONE_NAME=/two/one\n", "AL_IAS_ENV_WORD=x\n", "AL_IAS_PORT_80_TCP_PORT=80\n"] {
        assert!(env.contains(word), "{word}: {env}");
    }
    d.docker("exec two ping -c1 -W5 al-ias").ok();
    let links = d.docker("inspect -f {{.HostConfig.Links}} two").ok();
    assert_eq!(links, "[/one:/two/one /one:/two/al-ias]");
    d.docker("rm --link two/al-ias").ok();
    assert!(!d.docker("exec two cat /etc/hosts").ok().contains("al-ias"));

    let missing = d.docker("run --link none:x busybox true");
    assert!(missing.err.contains("could not get container for none: No such container: none"), "{}", missing.err);
    d.docker("stop -t 0 one two").ok();
    let stopped = d.docker("start two");
    assert!(stopped.err.contains("Cannot link to a non running container: /one AS /two/one"), "{}", stopped.err);
}

#[test]
fn a_network_that_is_not_there_fails_the_start() {
    let Some(d) = Daemon::start() else { return };
    d.docker("create --name lost --network nosuch busybox true").ok();
    let said = d.docker("start lost");
    assert!(said.err.contains("network nosuch not found"), "{}", said.err);
    let from = d.docker("create --volumes-from nosuch busybox true");
    assert!(from.err.contains("No such container: nosuch") && !from.err.contains("image"), "{}", from.err);
}
