// How a receiver is opened: the room in its queue, and what happens to events
// that it leaves unread.
//
//   auto receiver = service.Open({SIGRTMIN}, {.capacity = 10'000});
//
// ReceiverOptions is a value: copied, and used by one thread at a time.
#ifndef TOCSIN_SIGNALS_RECEIVER_OPTIONS_H_
#define TOCSIN_SIGNALS_RECEIVER_OPTIONS_H_

namespace tocsin::inline v0_2 {

inline constexpr int kMaxReceiverCapacity = 1'000'000;

struct ReceiverOptions {
  // How many real-time signals wait in the queue at most, from 1 to
  // kMaxReceiverCapacity. The memory is allocated when the receiver is opened,
  // about 80 bytes for each, if there is a real-time signal among its signals.
  int capacity = 1024;

  // What happens to events that are unread when the receiver is destroyed.
  // kRedeliver: they are sent to the process again, so that they have the
  // effect that they would have without us, or reach a receiver that has not
  // seen them. Events that another receiver also has or had are not sent again.
  enum class OnClose { kRedeliver, kDiscard };
  OnClose on_close = OnClose::kRedeliver;

  // Leave alone the signals that are ignored (SIG_IGN) when the receiver is
  // opened, as under nohup(1) and in a shell's background jobs, for as long as
  // they are: system(3) ignores SIGINT and SIGQUIT only until its command has
  // ended. One that is not ignored any more is received from the next time on
  // that a receiver is opened or closed, and otherwise within a second; within
  // a tenth of one if it was not ignored when the process started.
  bool honor_ignored = false;
};

}  // namespace tocsin::inline v0_2

#endif  // TOCSIN_SIGNALS_RECEIVER_OPTIONS_H_
