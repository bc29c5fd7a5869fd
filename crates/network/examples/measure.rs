use std::os::fd::AsFd; use std::time::{Duration, Instant};
use wharf_network::*;
fn main() {
    wharf_netlink::namespace::create(|| {
        let mut b = wharf_netlink::route::Batch::new(); b.set_up(1); wharf_netlink::route::Connection::open()?.apply(b)?;
        let root = tempfile::tempdir().unwrap();
        let t = Instant::now();
        let n = Networks::open(wharf_store::Store::open(root.path()).unwrap(), NetworkOptions{instance:"0123abcd".into(),..Default::default()}).unwrap();
        println!("open {:?}", t.elapsed());
        let (mut ns_t, mut c_t, mut p_t, mut r_t) = (vec![],vec![],vec![],vec![]);
        for i in 0..40 {
            std::thread::sleep(Duration::from_millis(60));
            let id = format!("{i:064x}");
            let t = Instant::now(); let ns = n.namespace().unwrap(); ns_t.push(t.elapsed());
            let t = Instant::now();
            let e = n.connect(&EndpointRequest{network:"bridge",container:&id,name:"x",netns:ns.as_fd(),index:0,ip:None,mac:None,aliases:&[]}).unwrap(); c_t.push(t.elapsed());
            let t = Instant::now();
            n.publish(&id, e.ip, &[PortRequest{container_port:80,protocol:Protocol::Tcp,host_ip:None,host_port:Some((8080,8080))}]).unwrap(); p_t.push(t.elapsed());
            std::thread::sleep(Duration::from_millis(10));
            drop(ns);
            let t = Instant::now(); n.release(&id).unwrap(); r_t.push(t.elapsed());
        }
        for (w, v) in [("namespace",&mut ns_t),("connect",&mut c_t),("publish",&mut p_t),("release",&mut r_t)] { v.sort(); println!("{w}: median {:?} max {:?}", v[v.len()/2], v[v.len()-1]); }
        // burst
        let t = Instant::now();
        std::thread::scope(|s| { for w in 0..8 { let n=&n; s.spawn(move || for i in 0..10 { let id=format!("{:064x}", 1000+w*100+i); let ns=n.namespace().unwrap(); n.connect(&EndpointRequest{network:"bridge",container:&id,name:"x",netns:ns.as_fd(),index:0,ip:None,mac:None,aliases:&[]}).unwrap(); drop(ns); n.release(&id).unwrap(); }); } });
        println!("80 by 8: {:?} each", t.elapsed()/80);
        Ok(())
    }).unwrap();
}
