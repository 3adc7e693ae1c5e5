// An open subscription to signals, from which threads take events in blocking
// calls.
//
//   absl::StatusOr<SignalReceiver> receiver = service.Open({SIGTERM, SIGHUP});
//   for (const SignalEvent& event : *receiver) {
//     if (event.signum == SIGTERM) break;
//     ReloadConfiguration();
//   }
//   return CheckCancelled();  // OK unless the scope ended the loop
//
// Signals that come before a wait are kept in a queue, in order of arrival.
// Standard signals (below SIGRTMIN) merge per number, as they do in the kernel:
// the first keeps its place and siginfo, `count` goes up, and none is ever
// dropped. Real-time signals queue one by one, up to ReceiverOptions::capacity;
// further ones are dropped and counted.
//
// Several threads may receive from one receiver: each event goes to one of
// them. All members may be called from any thread; move and destroy a receiver
// only while no thread is inside it. It may outlive its service.
#ifndef TOCSIN_SIGNALS_SIGNAL_RECEIVER_H_
#define TOCSIN_SIGNALS_SIGNAL_RECEIVER_H_

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "tocsin/signals/receiver_options.h"
#include "tocsin/signals/signal_event.h"
#include "tocsin/signals/signal_set.h"

namespace tocsin::inline v0_2 {

namespace internal {
class Subscription;
}  // namespace internal

class SignalReceiver {
 public:
  using Options = ReceiverOptions;
  class iterator;

  SignalReceiver(SignalReceiver&&) noexcept;
  SignalReceiver& operator=(SignalReceiver&&) noexcept;

  // Closes it, and then does with unread events what ReceiverOptions::on_close
  // says. If they are sent again under a disposition that ends the process, the
  // process ends here.
  ~SignalReceiver();

  // Waits for the next event. Errors: kCancelled and kDeadlineExceeded of the
  // current CancelScope, without taking an event; kOutOfRange when the receiver
  // is closed and its queue empty; kFailedPrecondition in a forked child, where
  // the receiver belongs to the parent.
  absl::StatusOr<SignalEvent> Receive();

  // The same, and kDeadlineExceeded when `timeout` has passed. A timeout that
  // is zero or negative takes what is queued without waiting.
  absl::StatusOr<SignalEvent> ReceiveFor(absl::Duration timeout);

  // Takes the next queued event, without waiting and regardless of the scope.
  // kUnavailable, without a message, if nothing is queued now; kOutOfRange when
  // the receiver is closed and its queue empty; kFailedPrecondition in a forked
  // child.
  absl::StatusOr<SignalEvent> TryReceive();

  // Ends the subscription. Signals that no other receiver is open for get their
  // previous disposition back, including every flag; those that were already on
  // their way are then treated as ReceiverOptions::on_close says. What is
  // queued can still be received; after that Receive() returns kOutOfRange,
  // also to threads that wait in it. Waits for the service's thread, which
  // takes tens of microseconds.
  void Close();

  // Whether no new events come: after Close(), by any thread, after the end of
  // the service, and in a forked child, where the receiver belongs to the
  // parent. Events that were queued before may still be there.
  bool closed() const;

  // Blocking iteration by Receive(). It ends when that fails: CheckCancelled()
  // tells whether the scope has ended, and closed() whether the receiver is
  // closed, which is not an error.
  iterator begin();
  std::default_sentinel_t end() { return std::default_sentinel; }

  // For poll(2) and epoll(7): a descriptor that is readable while an event is
  // queued or the receiver is closed. Take events with TryReceive() and do not
  // read from it. It belongs to the receiver, and the first call creates it;
  // kResourceExhausted if no descriptor is left (RLIMIT_NOFILE), and the next
  // call tries again.
  absl::StatusOr<int> fd() const;

  // What it receives: the signals it was opened for, without those that
  // ReceiverOptions::honor_ignored leaves alone at this time.
  SignalSet signals() const;

  // Real-time signals that were dropped because the queue was full.
  uint64_t dropped() const;

 private:
  friend class SignalService;
  explicit SignalReceiver(std::unique_ptr<internal::Subscription> subscription);

  std::unique_ptr<internal::Subscription> subscription_;  // null: moved from
};

// An input iterator: copies share the position.
class SignalReceiver::iterator {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = SignalEvent;
  using difference_type = std::ptrdiff_t;
  using pointer = const SignalEvent*;
  using reference = const SignalEvent&;

  reference operator*() const { return *event_; }
  pointer operator->() const { return &*event_; }
  iterator& operator++();
  void operator++(int) { ++*this; }
  friend bool operator==(const iterator& it, std::default_sentinel_t) {
    return !it.event_.has_value();
  }

 private:
  friend class SignalReceiver;
  explicit iterator(SignalReceiver& receiver) : receiver_(&receiver) {
    ++*this;
  }

  SignalReceiver* receiver_;
  std::optional<SignalEvent> event_;
};

}  // namespace tocsin::inline v0_2

#endif  // TOCSIN_SIGNALS_SIGNAL_RECEIVER_H_
