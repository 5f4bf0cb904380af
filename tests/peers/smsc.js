// An SMSC on the npm package `smpp`: prints its port, then each message as one JSON line. The last digits of the
// number decide on its behavior:
//
// - 0001 unknown number; 0002 throttled; 0003 no answer; 0004 the connection is cut;
// - 0005 accepted and not delivered;
// - 0006 a hexadecimal id in the answer and a decimal one in the receipt;
// - 0007 failed without a reason; 0008 not bound; 0009 an answer without a body;
// - 0010 a receipt in TLVs, after a command that no codec can parse;
// - 0011 and 0012 generic_nack; 0013 refused by an application.
//
// All other numbers are delivered.
const smpp = require("smpp");

let ids = 0;
let binds = 0;

function raw(id, status, sequence, body) {
  const header = Buffer.alloc(16);
  [16 + body.length, id, status, sequence].forEach((word, place) => header.writeUInt32BE(word, 4 * place));
  return Buffer.concat([header, body]);
}
const server = smpp.createServer((session) => {
  session.on("error", () => {});
  session.on("bind_transceiver", (pdu) => {
    binds += 1;
    const known = pdu.system_id === "watchword" && pdu.password === "secret";
    session.send(pdu.response({ command_status: known ? 0 : 0x0e }));
  });
  session.on("enquire_link", (pdu) => session.send(pdu.response()));
  session.on("submit_sm", (pdu) => {
    const to = pdu.destination_addr;
    const body = pdu.message_payload || pdu.short_message;
    const text = body.message !== undefined ? body.message : body.toString();
    const last = to.slice(-4);
    if (last === "0001") return session.send(pdu.response({ command_status: 0x0b }));
    if (last === "0002") return session.send(pdu.response({ command_status: 0x58 }));
    if (last === "0003") return undefined;
    if (last === "0004") return session.destroy();
    if (last === "0007") return session.send(pdu.response({ command_status: 0x45 }));
    if (last === "0008") return session.send(pdu.response({ command_status: 0x04 }));
    if (last === "0009") return session.socket.write(raw(0x80000004, 0, pdu.sequence_number, Buffer.alloc(0)));
    if (last === "0011") return session.socket.write(raw(0x80000000, 0x03, pdu.sequence_number, Buffer.alloc(0)));
    if (last === "0012") return session.socket.write(raw(0x80000000, 0x02, pdu.sequence_number, Buffer.alloc(0)));
    if (last === "0013") return session.send(pdu.response({ command_status: 0x66 }));
    if (last === "0010") {
      const long = Buffer.from("\0\x01\x01" + "4".repeat(30) + "\0\x01\x01\0\x04\0\0\0\0\0\0\0\0\x02hi", "latin1");
      session.socket.write(raw(0x00000005, 0, 7001, long));
      session.socket.write(raw(0x00000005, 0, 7002, Buffer.from([0xff])));
    }
    const number = 972676443 + ++ids;
    const id = last === "0006" ? `0${number.toString(16)}` : `smsc-${ids}`;
    console.log(JSON.stringify({
      id, to, text: String(text), from: pdu.source_addr, ton: pdu.source_addr_ton, coding: pdu.data_coding,
      validity: String(pdu.validity_period), registered: pdu.registered_delivery, binds,
    }));
    session.send(pdu.response({ message_id: id }));
    if (last === "0006") {
      session.deliver_sm({
        source_addr: to, destination_addr: "watchword", esm_class: 4, short_message: `ID:0${number} STAT:DELIVERED ERR:0`,
      });
      return undefined;
    }
    if (last === "0010") {
      session.deliver_sm({
        source_addr: to, destination_addr: "watchword", esm_class: 4, receipted_message_id: id, message_state: 5,
      });
      return undefined;
    }
    const stat = last === "0005" ? "UNDELIV" : "DELIVRD";
    const receipt = `id:${id} sub:001 dlvrd:001 submit date:2611241200 done date:2611241201 stat:${stat} err:000 text:`;
    // A person's text that looks like a receipt; its esm_class says that it is none.
    session.deliver_sm({
      source_addr: to, destination_addr: "watchword", short_message: `id:${id} stat:${stat === "UNDELIV" ? "DELIVRD" : "UNDELIV"} err:000`,
    });
    setTimeout(() => session.deliver_sm({
      source_addr: to, destination_addr: "watchword", esm_class: 4, short_message: receipt,
    }), 50);
    return undefined;
  });
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
process.stdin.resume();
process.stdin.on("end", () => process.exit(0));
