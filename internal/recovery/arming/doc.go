// Package arming plans and makes the changes to a system that let it recover from boots that fail: units, kernel
// parameters, the boot loader's counter.
//
// It guarantees: nothing is changed that the plan did not show before; to arm twice changes nothing the second time;
// disarming gives every file the bytes that it had, and leaves alone, and names, what somebody else changed since; an
// entry of the loader that belongs to another installation is never touched.
package arming
