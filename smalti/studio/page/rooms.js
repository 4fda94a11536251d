// The rooms: sections of class "room", of which one is seen; a door (a tab) leads to each.
// A room that needs what a server has alone says so: data-needs="server", or "prior"; without it there is no door.

// Show what is in a room when it is entered, and while it is open when the picture or its codes have changed.
function inRoom(name, show) {
  find(`room-${name}`).addEventListener("enter", () => show(window.studio));
  document.addEventListener("picture", () => window.studio.rooms?.now === name && show(window.studio));
}

class Rooms {
  constructor(server) {
    this.doors = find("doors");
    this.sections = [...document.querySelectorAll(".room")].filter((room) => server.has(room.dataset.needs));
    for (const room of document.querySelectorAll(".room")) room.hidden = true;
    for (const room of this.sections) this.doors.append(this.door(room));
    this.doors.hidden = this.sections.length < 2;
    this.doors.addEventListener("keydown", (event) => this.typed(event));
    window.addEventListener("hashchange", () => this.follow());
    this.follow();
  }

  door(room) {
    const door = document.createElement("button");
    Object.assign(door, { type: "button", id: room.id.replace("room-", "door-"), textContent: room.dataset.title });
    door.setAttribute("role", "tab");
    door.setAttribute("aria-controls", room.id);
    door.addEventListener("click", () => this.enter(room.id.replace("room-", "")));
    room.setAttribute("role", "tabpanel");
    room.setAttribute("aria-labelledby", door.id);
    return door;
  }

  // See a room, which is told by an event "enter".
  enter(name) {
    const entered = this.sections.find((room) => room.id === `room-${name}`) ?? this.sections[0];
    for (const room of this.sections) {
      const open = room === entered;
      const door = find(room.id.replace("room-", "door-"));
      room.hidden = !open;
      door.setAttribute("aria-selected", open);
      door.tabIndex = open ? 0 : -1;
    }
    this.now = entered.id.replace("room-", "");
    history.replaceState(null, "", `#${this.now}`);
    entered.dispatchEvent(new Event("enter"));
  }

  follow() {
    this.enter(location.hash.slice(1));
  }

  typed(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    const doors = [...this.doors.children];
    const next = doors[(doors.indexOf(event.target) + step + doors.length) % doors.length];
    next.click();
    next.focus();
    event.preventDefault();
  }
}
