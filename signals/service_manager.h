// What this process tells the service manager that started it, such as systemd,
// and how often the manager wants to hear from it.
//
//   listener.Open();
//   NotifyReady().IgnoreError();
//
// The protocol is that of sd_notify(3), one datagram for each call to the
// socket that $NOTIFY_SOCKET names; no library of systemd is needed. If the
// variable is unset or empty, there is no manager, and every notification does
// nothing and returns OK. A unit of systemd needs Type=notify or
// Type=notify-reload.
//
// All functions may be called from any thread, but not while another thread
// changes the environment. A call blocks while the manager's queue is full;
// NotifyStopping() does not.
//
// kInvalidArgument if $NOTIFY_SOCKET is neither an absolute path nor an
// abstract name (with a leading @), or longer than a socket's address;
// kUnavailable if nobody takes the datagram; kResourceExhausted if there is no
// descriptor left.
#ifndef TOCSIN_SIGNALS_SERVICE_MANAGER_H_
#define TOCSIN_SIGNALS_SERVICE_MANAGER_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace tocsin::inline v0_2 {

// Start-up is over, or a reload is.
absl::Status NotifyReady();

// A reload begins. Call NotifyReady() when it is over.
absl::Status NotifyReloading();

// Shutdown begins. Shutdown and Run() call it themselves when the first signal
// comes, unless $SYSTEMD_EXEC_PID says that the service is another process. It
// does not wait, so that the manager cannot hold up the end of a program:
// kUnavailable if the manager's queue is full.
//
// If `takes` is given, the manager is asked to wait that long for the end,
// instead of as long as it is configured to (EXTEND_TIMEOUT_USEC).
absl::Status NotifyStopping(absl::Duration takes = absl::ZeroDuration());

// The process is alive. Call it more often than WatchdogPeriod(), or have Run()
// do so: RunOptions::notify_watchdog.
absl::Status NotifyWatchdog();

// How long the manager waits for NotifyWatchdog(), or for the next one, before
// it acts, usually by killing the process: the unit's WatchdogSec=. Half of it
// is a good interval. InfiniteDuration() if it waits for none: there is no
// manager, $WATCHDOG_USEC is unset or empty, or $WATCHDOG_PID is another
// process. kInvalidArgument if one of the two is no positive number.
absl::StatusOr<absl::Duration> WatchdogPeriod();

}  // namespace tocsin::inline v0_2

#endif  // TOCSIN_SIGNALS_SERVICE_MANAGER_H_
