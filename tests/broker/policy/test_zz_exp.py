from dataclasses import replace, dataclass
from broker.policy.grants import Question
from broker.policy.slices import PolicySlices
from tests.broker.policy.conftest import *

@dataclass(frozen=True)
class Odd(Question):
    def context(self):
        c = super().context(); c["request"]["order_id"]=5 if self.workflow=="x" else c["request"].get("order_id"); 
        if self.workflow=="big": c["request"]["amount"]["minor_units"]=2**64-1
        c.pop("workflow",None)
        return c

def test_x(desk):
    for cond in ("", "context.request has amount"):
        g = desk.compile(write_permit("mine", cond) if cond else write_permit("mine"))
        s = PolicySlices(g.policies, g._schema)
        q = Question.of(desk.refund(100))
        fields = {k:getattr(q,k) for k in ("agent","environment","contract","message","targets","tool_version","subject")}
        for wf in ("x","big"):
            o = Odd(**fields, workflow=wf)
            fresh = PolicySlices(g.policies, g._schema).evaluate(o)
            s.evaluate(q)
            print(repr(cond), wf, "fresh", fresh.allowed, fresh.errors, "cached", s.evaluate(o).allowed)
