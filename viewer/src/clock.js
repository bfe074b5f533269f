// Time: one value in the unit of the time axis, the frames on both sides of it, and playing.

/** Fractional index of `value` in increasing `times`, clipped to the ends. */
export function locate(times, value) {
  let low = 0;
  let high = times.length - 1;
  if (value <= times[low]) return low;
  if (value >= times[high]) return high;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (times[middle] <= value) low = middle;
    else high = middle;
  }
  return low + (value - times[low]) / (times[high] - times[low]);
}

/** Value of `times` at a fractional index. */
export function valueAt(times, position) {
  const low = Math.max(0, Math.min(times.length - 1, Math.floor(position)));
  const high = Math.min(low + 1, times.length - 1);
  return times[low] + (position - low) * (times[high] - times[low]);
}

/** First index whose time is not before `value`; the last one if all are. */
export function firstFrom(times, value) {
  return Math.min(times.length - 1, Math.ceil(locate(times, value) - 1e-9));
}

/**
 * A clock over `times`. `seconds` is how long the run takes at speed 1; `smooth` says whether moments between
 * frames are shown; `changed` is called after every change.
 */
export function makeClock(times, { seconds, smooth, changed }) {
  const last = times.length - 1;
  const rate = (times[last] - times[0]) / seconds;
  let value = times[0];
  let playing = false;
  let speed = 1;
  let before = null; // moment of the tick before, in ms

  const position = () => (smooth() ? locate(times, value) : Math.floor(locate(times, value) + 1e-9));
  const clock = {
    times,
    value: () => value,
    position,
    frame: () => Math.round(position()),
    playing: () => playing,
    speed: () => speed,
    setValue(wanted) {
      value = Math.max(times[0], Math.min(times[last], wanted));
      changed();
    },
    setFrame(k) {
      clock.setValue(times[Math.max(0, Math.min(last, Math.round(k)))]);
    },
    step(frames) {
      clock.pause();
      clock.setFrame(clock.frame() + frames);
    },
    setSpeed(wanted) {
      speed = wanted;
      changed();
    },
    play() {
      if (last === 0) return;
      if (value >= times[last]) value = times[0];
      playing = true;
      before = null;
      changed();
    },
    pause() {
      playing = false;
      changed();
    },
    toggle() {
      if (playing) clock.pause();
      else clock.play();
    },
    /** Moves on by the time passed since the tick before; a hidden tab does not jump. */
    tick(now) {
      if (!playing) return;
      const passed = before === null ? 0 : Math.min(0.1, (now - before) / 1000);
      before = now;
      value = Math.min(times[last], value + rate * speed * passed);
      if (value >= times[last]) playing = false;
    },
  };
  return clock;
}
